"""HorBlock against its definition and counts derived by hand, HorNet against its published size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from quadnas.blocks.base import Ports
from quadnas.blocks.hor import Hor
from quadnas.config import validated
from quadnas.errors import ConfigError
from quadnas.latency.devices import load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import Coverage, estimate
from quadnas.network import Network, kernels_of, operators_of
from quadnas.ops.gated_convolution import GatedConvolutionMixer
from quadnas.space.layer import Layer
from quadnas.space.model_family import find_model
from quadnas.testing.blocks import declared_macs
from tests.numerics.saved import saved_bytes


@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_recursive_gated_convolution_is_the_published_one(order: int) -> None:
    """Section 3.1 of the source in plain NCHW functions, every gate with a convolution of its own."""
    channels = 32
    mixer = GatedConvolutionMixer(channels, order).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    x = torch.randn(2, channels, 6, 9, dtype=torch.float64, generator=generator)
    p = mixer.get_parameter

    def pointwise(t: Tensor, name: str) -> Tensor:
        return F.conv2d(t, p(f"{name}.weight")[:, :, None, None], p(f"{name}.bias"))

    widths = {2: [16, 32], 3: [8, 16, 32], 4: [4, 8, 16, 32], 5: [2, 4, 8, 16, 32]}[order]
    entered = pointwise(x, "enter")
    y, at = entered[:, : widths[0]], 0
    for step, width in enumerate(widths):
        part = slice(at, at + width)
        if step:
            y = pointwise(y, f"steps.{step - 1}")
        gate = F.conv2d(
            entered[:, widths[0] + at : widths[0] + at + width],
            p("gates.weight")[part], p("gates.bias")[part], padding=3, groups=width,
        )  # fmt: skip
        y = y * (gate / 3)
        at += width
    torch.testing.assert_close(mixer(x), pointwise(y, "leave"), rtol=1e-10, atol=1e-10)


@given(order=st.integers(2, 5), factor=st.floats(-2, 2))
@settings(deadline=None, max_examples=30)
def test_order_n_is_a_product_of_n_plus_one_linear_maps(order: int, factor: float) -> None:
    """Without biases the mixer is homogeneous of that degree."""
    mixer = GatedConvolutionMixer(16, order).double()
    generator = torch.Generator().manual_seed(order)
    for name, parameter in mixer.named_parameters():
        torch.nn.init.normal_(parameter, std=0 if name.endswith("bias") else 0.5, generator=generator)
    x = torch.randn(1, 16, 5, 4, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        expected = factor ** (order + 1) * mixer(x)
        torch.testing.assert_close(mixer(factor * x), expected, rtol=1e-9, atol=1e-9)


# By hand; mixer = 2 C^2 + 2 C in, 50 per gate channel, steps, C^2 + C out, e.g. for C 64, gates of 32 and 64:
# 8320 + 96*50 + (32*64 + 64) + 4160 = 19392; LayerNorms and layer scales 6 C; MLP 8 C^2 + 5 C.
@pytest.mark.parametrize(
    ("order", "channels", "side", "parameters", "macs"),
    [
        (2, 64, 56, 52_864, 162_469_888),
        (3, 128, 28, 203_648, 157_928_960),
        (4, 256, 14, 791_936, 154_335_104),
        (5, 512, 7, 3_115_392, 152_207_328),
    ],
)
def test_size_and_work_are_those_derived_by_hand(
    order: int, channels: int, side: int, parameters: int, macs: int
) -> None:
    block, ports = Hor(order=order, expansion=4), Ports(channels, channels, 1)
    with torch.device("meta"):
        module = block.build(ports)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters
    assert declared_macs(block, ports, side, side) == macs


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [("hornet_tiny", 22.410, 3.968), ("hornet_small", 49.528, 8.814), ("hornet_base", 87.257, 15.567)],
)
def test_hornet_has_the_published_size(name: str, parameters: float, gmacs: float) -> None:
    """Published are 22, 50, 87 M and 4.0, 8.8, 15.6 G; the further digits come from an independent count."""
    layers = find_model(name).layers
    assert [layer.block for layer in layers] == [
        "patchify", *["hor"] * 2, "downsample", *["hor"] * 3, "downsample", *["hor"] * 18, "downsample",
        *["hor"] * 2, "classifier",
    ]  # fmt: skip
    with torch.device("meta"):
        network = Network(layers)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 3) == parameters
    assert round(sum(o.kernel.macs for o in operators_of(layers, 224)) / 1e9, 3) == gmacs


@pytest.mark.parametrize(("order", "units"), [(2, 20), (3, 21), (4, 21.5), (5, 21.75)])
def test_training_keeps_what_the_products_need(order: int, units: float) -> None:
    """In inputs of the block: the mixer keeps its input, 2 for ``enter``, and both factors of every product.

    Besides, each LayerNorm keeps 2 numbers a position, and the scaled weights of the gates are kept.
    """
    channels = 64
    module = Hor(order=order, expansion=4).build(Ports(channels, channels, 1))
    x = torch.randn(2, channels, 16, 12).contiguous(memory_format=torch.channels_last).requires_grad_()
    gates = 2 * channels - (channels >> (order - 1))
    expected = units * x.nbytes + 2 * (2 * 2 * 16 * 12 * 4) + gates * 49 * 4
    assert saved_bytes(lambda: module(x), module.parameters()) == expected


@pytest.mark.parametrize("order", [2, 5])
def test_deployment_folds_both_scales(order: int) -> None:
    block = Hor(order=order, expansion=2, layer_scale=0.5)
    module = block.build(Ports(32, 32, 1)).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    folded = block.deployed(module)
    x = torch.randn(2, 32, 7, 5, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), module(x), rtol=1e-10, atol=1e-10)
    assert not any("scale" in name for name, _ in folded.named_parameters())
    leaves = {type(leaf).__name__ for leaf in folded.modules() if not list(leaf.children())}
    assert leaves == {"Conv2d", "Linear", "ChannelLayerNorm", "DropPath"}


def test_the_operators_of_order_2_with_their_edges() -> None:
    def kernel(op: str, inputs: tuple[int, ...], cout: int, side: int = 1) -> Kernel:
        return Kernel(op, 5, 6, inputs, cout, side)

    operators = Hor(order=2, expansion=4).operators(Ports(8, 8, 1), 5, 6)
    assert [(o.kernel, o.sources) for o in operators[:9]] == [
        (kernel("layernorm", (8,), 8), (-1,)),
        (kernel("conv", (8,), 16), (0,)),
        (kernel("split", (16,), 8), (1,)),
        (kernel("dwconv", (12,), 12, 7), (2,)),
        (kernel("split", (12,), 6), (3,)),
        (kernel("mul", (4, 4), 4), (2, 4)),
        (kernel("conv", (4,), 8), (5,)),
        (kernel("mul", (8, 8), 8), (6, 4)),
        (kernel("conv", (8,), 8), (7,)),
    ]


def test_widths_that_cannot_be_halved_and_unknown_orders_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"order 4 halves its channels 3 times: it needs a multiple of 8, not 12"
    ):
        Hor(order=4, expansion=4).check(Ports(12, 12, 1))
    Hor(order=3, expansion=4).check(Ports(12, 12, 1))
    with pytest.raises(ConfigError, match="keeps the shape"):
        Hor(order=2, expansion=4).check(Ports(8, 16, 1))
    for order in (1, 6):
        with pytest.raises(ConfigError, match="order"):
            validated({"order": order, "expansion": 4}, Hor, "here")


@pytest.mark.parametrize("device", ["cortexA76", "a100", "zcu102"])
def test_its_copies_are_priced_by_a_stand_in_or_not_at_all(device: str) -> None:
    model = load_device(device)
    layers = [Layer(block="hor", channels_in=64, channels_out=64, arguments={"order": 3, "expansion": 4})]
    found = estimate(model, kernels_of(layers, 14, model))
    prices = {kernel.op: price for kernel, price in zip(found.kernels, found.prices, strict=True)}
    if device == "zcu102":
        assert found.latency_ms is None and prices["split"].coverage is Coverage.UNCOVERED
        assert prices["split"].reason.startswith("'split' was never measured on zcu102")
    else:
        assert found.latency_ms is not None and prices["split"].latency_ms
        assert prices["split"].coverage is Coverage.SURROGATE
