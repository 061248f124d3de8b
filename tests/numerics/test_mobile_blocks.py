"""MobileNetV2 as a model spec against the published network, and what deployment folds."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.blocks.base import Ports, block_of
from quadnas.blocks.mbconv import MBConv
from quadnas.errors import ConfigError
from quadnas.network import Network, deployed
from quadnas.space.layer import Layer
from quadnas.testing.blocks import declared_macs
from tests.golden.networks import mobilenet_v2, quadranet_xs


def randomised(network: nn.Module) -> None:
    """Running statistics and scales far from their initial values, of a size that keeps activations finite."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var") or "scale" in name:
            tensor.uniform_(0.5, 2, generator=generator)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.1, generator=generator)


def test_mobilenet_v2_has_the_published_size() -> None:
    layers = mobilenet_v2()
    with torch.device("meta"):
        network = Network(layers)
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_504_872
    total, height, width = 0, 224, 224
    for layer in layers:
        block, ports = block_of(layer)
        total += declared_macs(block, ports, height, width)
        height, width = block.output_size(ports, height, width)
    assert total == 300_774_272


def test_an_inverted_residual_is_the_published_one() -> None:
    """Written out with plain functions in evaluation mode."""
    network = Network(
        [Layer(block="mbconv", channels_in=4, channels_out=4, arguments={"kernel": 5, "expansion": 3})]
    )
    randomised(network)
    state = network.double().eval().state_dict()
    x = torch.randn(2, 4, 9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def conv_bn(x: Tensor, number: int, groups: int = 1) -> Tensor:
        at = f"layers.0.layers.{number}."
        weight = state[at + "0.weight"]
        y = F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)
        mean, variance = (state[at + f"1.running_{name}"][:, None, None] for name in ("mean", "var"))
        scale, shift = (state[at + f"1.{name}"][:, None, None] for name in ("weight", "bias"))
        normal: Tensor = (y - mean) / (variance + 1e-3).sqrt() * scale + shift
        return normal

    y = conv_bn(x, 0).clamp(0, 6)
    y = conv_bn(y, 1, groups=12).clamp(0, 6)
    with torch.no_grad():
        torch.testing.assert_close(network(x), x + conv_bn(y, 2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layers", [mobilenet_v2(10), quadranet_xs(10)], ids=["mobilenet_v2", "quadranet"])
def test_deployment_changes_no_logit_and_folds_what_is_free(layers: tuple[Layer, ...]) -> None:
    network = Network(layers)
    randomised(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = deployed(layers, network).double()
    network.double()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = network(x), folded(x)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not any("scale" in name for name, _ in folded.named_parameters())
    for name, tensor in network.float().state_dict().items():
        torch.testing.assert_close(tensor, before[name], msg=name)


@pytest.mark.parametrize(("channels", "stride"), [(8, 2), (12, 1)])
def test_no_residual_where_the_shape_changes(channels: int, stride: int) -> None:
    layer = Layer(
        block="mbconv", channels_in=8, channels_out=channels, stride=stride, arguments={"expansion": 1}
    )
    block, ports = block_of(layer)
    assert [o.kernel.op for o in block.operators(ports, 9, 9)] == ["dwconv", "bn", "relu6", "conv", "bn"]
    assert block.build(ports)(torch.zeros(2, 8, 9, 9)).shape == (
        2,
        channels,
        -(-9 // stride),
        -(-9 // stride),
    )


# By hand, as ProxylessNAS builds them: 1x1 to in * expansion channels (none for expansion 1), depthwise, 1x1, a
# scale and a shift per channel behind each, no other weights. 40 -> 80: 40*240 + 480, 240*49 + 480, 240*80 + 160.
@pytest.mark.parametrize(
    ("ports", "kernel", "expansion", "parameters", "macs"),
    [
        (Ports(40, 80, 2), 7, 6, 41_680, 28 * 28 * 9600 + 14 * 14 * (11_760 + 19_200)),
        (Ports(40, 40, 1), 5, 3, 13_160, 28 * 28 * (4800 + 3000 + 4800)),
        (Ports(32, 16, 1), 3, 1, 896, 28 * 28 * (288 + 512)),
    ],
)
def test_an_inverted_residual_has_the_size_derived_by_hand(
    ports: Ports, kernel: int, expansion: int, parameters: int, macs: int
) -> None:
    block = MBConv(kernel=kernel, expansion=expansion)
    assert sum(parameter.numel() for parameter in block.build(ports).parameters()) == parameters
    assert declared_macs(block, ports, 28, 28) == macs


@pytest.mark.parametrize("block", ["mbconv", "conv_bn"])
def test_larger_strides_are_refused(block: str) -> None:
    arguments = {"expansion": 6} if block == "mbconv" else {}
    for stride in (1, 2):
        block_of(Layer(block=block, channels_in=8, channels_out=16, stride=stride, arguments=arguments))
    with pytest.raises(ConfigError, match=f"block '{block}' has stride 1 or 2, not 3"):
        block_of(Layer(block=block, channels_in=8, channels_out=16, stride=3, arguments=arguments))
