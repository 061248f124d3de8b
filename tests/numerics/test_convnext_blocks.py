"""The ConvNeXt block against its definition, and the whole family against its published size."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quadnas.blocks.base import Ports, block_of
from quadnas.blocks.convnext import ConvNeXt
from quadnas.network import Network
from quadnas.space.layer import Layer
from quadnas.testing.blocks import declared_macs


def convnext(channels: int, depths: tuple[int, ...]) -> list[Layer]:
    """The pyramid of arXiv 2201.03545: stem, four stages with down-sampling between them, head."""
    layers = [Layer(block="patchify", channels_in=3, channels_out=channels, stride=4)]
    for stage, depth in enumerate(depths):
        if stage:
            layers.append(
                Layer(block="downsample", channels_in=channels, channels_out=2 * channels, stride=2)
            )
            channels *= 2
        layers += [Layer(block="convnext", channels_in=channels, channels_out=channels)] * depth
    return [*layers, Layer(block="classifier", channels_in=channels, channels_out=1000)]


@pytest.mark.parametrize(
    ("channels", "depths", "parameters", "gmacs"),
    [
        (96, (3, 3, 9, 3), 28_589_128, 4.456),
        (96, (3, 3, 27, 3), 50_223_688, 8.684),
        (128, (3, 3, 27, 3), 88_591_464, 15.355),
    ],
    ids=["T", "S", "B"],
)
def test_published_size(channels: int, depths: tuple[int, ...], parameters: int, gmacs: float) -> None:
    """Parameters as published with torchvision's weights, multiply-accumulates too."""
    layers = convnext(channels, depths)
    with torch.device("meta"):
        network = Network(layers)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    total, height, width = 0, 224, 224
    for layer in layers:
        block, ports = block_of(layer)
        total += declared_macs(block, ports, height, width)
        height, width = block.output_size(ports, height, width)
    assert total / 1e9 == pytest.approx(gmacs, abs=0.0006)


@pytest.mark.parametrize("quadratic", [False, True])
def test_block_is_the_published_one(quadratic: bool) -> None:
    """Written out with plain functions; the linear term of the quadratic one is ConvNeXt's convolution."""
    torch.manual_seed(0)
    block = ConvNeXt(kernel=7, layer_scale=0.5, quadratic=quadratic).build(Ports(6, 6, 1)).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    p = block.get_parameter
    x = torch.randn(2, 6, 8, 7, dtype=torch.float64)

    def depthwise(weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, padding=3, groups=6)

    weight, bias = p("branch.mixer.weight"), p("branch.mixer.bias")
    if quadratic:
        a, b, c = (depthwise(*term) for term in zip(weight, bias, strict=True))
        y = a * b + c
    else:
        y = depthwise(weight, bias)
    mean, variance = y.mean(1, keepdim=True), y.var(1, keepdim=True, correction=0)
    y = (y - mean) / (variance + 1e-6).sqrt()
    y = (y.permute(0, 2, 3, 1) * p("branch.norm.weight") + p("branch.norm.bias")) @ p(
        "branch.mlp.expand.weight"
    ).T + p("branch.mlp.expand.bias")
    y = 0.5 * y * (1 + torch.erf(y / 2**0.5))
    y = y @ p("branch.mlp.project.weight").T + p("branch.mlp.project.bias")
    expected = x + (p("scale") * y).permute(0, 3, 1, 2)
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)


def test_its_operators_stand_in_the_published_order() -> None:
    operators = ConvNeXt().operators(Ports(8, 8, 1), 14, 14)
    assert [(o.kernel.op, o.sources) for o in operators] == [
        ("dwconv", (-1,)),
        ("layernorm", (0,)),
        ("conv", (1,)),
        ("gelu", (2,)),
        ("conv", (3,)),
        ("add", (-1, 4)),
    ]
