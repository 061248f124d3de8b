"""The shared structure of blocks: size, initialisation, memory in training, and what deployment folds."""

import pytest
import torch
from torch import Tensor, nn

from quadnas.blocks.base import Block, Ports, ResidualBlock
from quadnas.blocks.classifier import Classifier
from quadnas.blocks.conv import Conv
from quadnas.blocks.convnext import ConvNeXt
from quadnas.blocks.quadra import Quadra
from quadnas.blocks.skip import Skip
from quadnas.ops.drop_path import DropPath
from quadnas.testing.blocks import declared_macs
from tests.numerics.saved import saved_bytes

CHANNELS = 64
PORTS = Ports(CHANNELS, CHANNELS, 1)

# By hand for 64 channels, kernel 7, expansion 4. MLP: 64*256 + 256 + 256*64 + 64 = 33088 parameters and 32768
# multiply-accumulates a position; LayerNorm 128; depthwise 49*64 + 64 = 3200 and 3136; layer scale 64.
COUNTS: list[tuple[Block, int, int]] = [
    (Skip(expansion=4), 33088 + 128 + 64, 32768),
    (Conv(expansion=4), 33088 + 2 * (128 + 64) + 3200, 32768 + 3136),
    (Quadra(kernel=7, expansion=4), 33088 + 2 * (128 + 64) + 3 * 3200, 32768 + 3 * 3136),
    (Quadra(kernel=7, expansion=4, layer_scale=None), 33088 + 2 * 128 + 3 * 3200, 32768 + 3 * 3136),
    (Quadra(kernel=31, expansion=4), 33088 + 2 * (128 + 64) + 3 * 962 * 64, 32768 + 3 * 961 * 64),
    # FC1 three times: 2 * (64*256 + 256) more
    (Quadra(kernel=7, expansion=4, quadratic_layers=1), 43072 + 33280, 32768 + 9408 + 32768),
    # FC2 three times too: 2 * (256*64 + 64) more
    (Quadra(kernel=7, expansion=4, quadratic_layers=2), 43072 + 33280 + 32896, 32768 + 9408 + 65536),
    (ConvNeXt(), 33088 + 128 + 64 + 3200, 32768 + 3136),
    (ConvNeXt(quadratic=True), 33088 + 128 + 64 + 3 * 3200, 32768 + 3 * 3136),
]


@pytest.mark.parametrize(("block", "parameters", "macs"), COUNTS, ids=repr)
def test_size_and_work_are_those_derived_by_hand(block: Block, parameters: int, macs: int) -> None:
    with torch.device("meta"):
        module = block.build(PORTS)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters
    assert declared_macs(block, PORTS, 5, 3) == 15 * macs


# Saved for the backward pass in inputs per layer (spec: Skip 11.0, Conv and Quadra 14.1 at 64 channels), and
# LayerNorms, each of which keeps a mean and a deviation per position.
SAVED: list[tuple[Block, int, int]] = [
    (Skip(expansion=4), 11, 1),
    (Conv(expansion=4), 14, 2),
    (Quadra(kernel=7, expansion=4), 14, 2),
    (Quadra(kernel=7, expansion=2), 10, 2),
    (Quadra(kernel=7, expansion=4, layer_scale=None), 12, 2),
    (Quadra(kernel=7, expansion=4, quadratic_layers=2), 14, 2),
    (ConvNeXt(), 12, 1),
    (ConvNeXt(quadratic=True), 12, 1),
]


@pytest.mark.parametrize(("block", "inputs", "norms"), SAVED, ids=repr)
def test_training_keeps_no_more_than_the_mathematics_needs(block: Block, inputs: int, norms: int) -> None:
    module = block.build(PORTS)
    x = torch.randn(2, CHANNELS, 10, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = inputs * x.nbytes + norms * 2 * (2 * 10 * 8 * 4)
    assert saved_bytes(lambda: module(x), module.parameters()) == expected


def test_dropping_paths_keeps_one_number_per_sample_and_half() -> None:
    module = Quadra(kernel=7, expansion=4).build(PORTS)
    x = torch.randn(5, CHANNELS, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    without = saved_bytes(lambda: module(x), module.parameters())
    for part in module.modules():
        if isinstance(part, DropPath):
            part.rate = 0.5
    assert saved_bytes(lambda: module(x), module.parameters()) == without + 2 * 5 * 4


def randomised(module: nn.Module) -> None:
    """Every parameter far from its first value, of a size that keeps activations finite."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        spread = 1 if "scale" in name or "norm" in name else 0.1
        nn.init.normal_(parameter, std=spread, generator=generator)


PLAIN = {"Conv2d", "Linear", "LayerNorm", "ChannelLayerNorm", "Identity", "DropPath"}


@pytest.mark.parametrize(
    ("block", "ports"),
    [(block, PORTS) for block, _, _ in COUNTS]
    + [(Classifier(norm=norm), Ports(64, 10, 1)) for norm in ("after-pool", "before-pool", "none")],
    ids=repr,
)
def test_deployment_changes_the_operators_but_not_the_function(block: Block, ports: Ports) -> None:
    module = block.build(ports).double()
    randomised(module)
    x = torch.randn(2, CHANNELS, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    module.eval()
    random_state = torch.get_rng_state()
    folded = block.deployed(module)
    assert torch.equal(random_state, torch.get_rng_state()), "deployment draws random numbers"
    with torch.no_grad():
        expected, found = module(x), folded(x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert {type(leaf).__name__ for leaf in folded.modules() if not list(leaf.children())} <= PLAIN
    assert not any("scale" in name for name, _ in folded.named_parameters())
    for parameter in folded.parameters():
        parameter.data.zero_()
    if folded is not module:  # the norms may be shared, the folded weights may not
        weights = [p for name, p in module.named_parameters() if "norm" not in name]
        assert all(parameter.abs().max() > 0 for parameter in weights)


@pytest.mark.parametrize("block", [block for block, _, _ in COUNTS], ids=repr)
def test_initialisation_is_that_of_the_paper(block: Block) -> None:
    torch.manual_seed(0)
    for name, parameter in block.build(PORTS).named_parameters():
        if name.endswith("scale"):
            assert torch.all(parameter == 1e-6), name
        elif "norm" in name:
            assert torch.all(parameter == (1 if name.endswith("weight") else 0)), name
        elif name.endswith("bias"):
            assert torch.all(parameter == 0), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name


@pytest.mark.parametrize("family", [Skip, Conv, ConvNeXt])
def test_a_supernet_starts_from_a_larger_layer_scale(family: type[ResidualBlock]) -> None:
    module = family(expansion=2).in_supernet().build(PORTS)
    scales = [p for name, p in module.named_parameters() if name.endswith("scale")]
    assert scales and all(torch.all(scale == 0.1) for scale in scales)
    assert family(expansion=2, layer_scale=None).in_supernet().layer_scale is None


def test_a_conv_block_is_a_quadra_block_whose_factors_vanish() -> None:
    quadra = Quadra(kernel=7, expansion=4, layer_scale=1).build(PORTS)
    conv = Conv(kernel=7, expansion=4, layer_scale=1).build(PORTS)
    randomised(quadra)
    state: dict[str, Tensor] = quadra.state_dict()
    for tail in ("weight", "bias"):
        name = f"spatial.branch.mixer.{tail}"
        state[name][0] = 0
        conv.get_parameter(name).data = state[name][2].clone()
    conv.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith("spatial.branch.mixer")}, strict=False
    )
    x = torch.randn(2, CHANNELS, 9, 9)
    torch.testing.assert_close(conv(x), quadra(x), rtol=1e-5, atol=1e-5)
    skip = Skip(expansion=4, layer_scale=1).build(PORTS)
    skip.load_state_dict({k: v for k, v in state.items() if k.startswith("channel")})
    spatial: nn.Module = conv.get_submodule("spatial")
    torch.testing.assert_close(skip(spatial(x)), conv(x))
