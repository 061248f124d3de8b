"""Conformance checks for a block family: what its module does must be what it declares.

Each raises AssertionError. ``torch.utils.flop_counter`` counts independently of ``operators``.
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from quadnas.blocks.base import Block, Ports


def declared_macs(block: Block, ports: Ports, height: int, width: int) -> int:
    """Multiply-accumulates of all operators that the block declares on a map of this size."""
    return sum(operator.kernel.macs for operator in block.operators(ports, height, width))


def check_block(block: Block, ports: Ports, height: int, width: int) -> None:
    """Shape, layout, gradient flow, deployed form and declared work of the block on a map of this size."""
    module = block.build(ports)
    x = torch.randn(2, ports.channels_in, height, width).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    y = module(x)
    out_height, out_width = block.output_size(ports, height, width)
    if y.ndim == 4:
        assert y.shape == (2, ports.channels_out, out_height, out_width), y.shape
        assert y.is_contiguous(memory_format=torch.channels_last), "the output left channels-last"
    else:
        assert y.shape == (2, ports.channels_out), y.shape
    y.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"{name} gets no gradient"
    check_deployment(block, ports, height, width)
    check_edges(block, ports, height, width)


def check_deployment(block: Block, ports: Ports, height: int, width: int) -> None:
    """The deployed form computes the same as the trained one, does the declared work and changes no weight."""
    module = block.build(ports).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.rand_like(parameter), alpha=1 if parameter.ndim < 2 else 0.1)
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer))
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        x = torch.randn(2, ports.channels_in, height, width, dtype=torch.float64)
        x = x.contiguous(memory_format=torch.channels_last)
        expected = module(x)
        with FlopCounterMode(display=False) as counter:
            found = block.deployed(module)(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    counted, declared = counter.get_total_flops(), 2 * 2 * declared_macs(block, ports, height, width)
    assert counted == declared, (
        f"the module does {counted} flops for 2 images, its operators declare {declared}"
    )


def check_edges(block: Block, ports: Ports, height: int, width: int) -> None:
    """Every operator reads the layer's input or an earlier operator, and nothing but the last stays unread."""
    operators = block.operators(ports, height, width)
    read = {source for operator in operators for source in operator.sources}
    for position, operator in enumerate(operators):
        assert operator.sources, f"operator {position} reads nothing"
        assert all(-1 <= source < position for source in operator.sources), operator
    unread = set(range(len(operators))) - read
    assert unread <= {len(operators) - 1}, f"the results of operators {sorted(unread)[:-1]} are dropped"
