"""Block families against their declarations, and the QuadraNet family against published counts."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from quadnas.blocks.base import BLOCKS, Block, Ports, connects
from quadnas.blocks.classifier import Classifier
from quadnas.blocks.conv import Conv
from quadnas.blocks.conv_bn import ConvBNBlock
from quadnas.blocks.convnext import ConvNeXt
from quadnas.blocks.global_filter import QuadraGlobalFilter
from quadnas.blocks.hor import Hor
from quadnas.blocks.identity import Identity
from quadnas.blocks.mbconv import MBConv
from quadnas.blocks.patch_merging import PatchMerging
from quadnas.blocks.patchify import Downsample, Patchify
from quadnas.blocks.quadra import Quadra
from quadnas.blocks.quadra_bn import QuadraBN
from quadnas.blocks.skip import Skip
from quadnas.blocks.swin import Swin
from quadnas.config import parse_yaml, validated
from quadnas.errors import ConfigError
from quadnas.network import Network
from quadnas.space.search_space import SearchSpace, SpaceFile, space_from
from quadnas.testing.blocks import check_block, declared_macs

PORTS = Ports(8, 10, 1)

CASES: list[tuple[Block, Ports]] = [
    (Quadra(kernel=3, expansion=2), Ports(8, 8, 1)),
    (Quadra(kernel=7, expansion=4), Ports(8, 8, 1)),
    (Quadra(kernel=1, expansion=3, quadratic_layers=1, layer_scale=None), Ports(8, 8, 1)),
    (Quadra(kernel=15, expansion=2, quadratic_layers=2), Ports(8, 8, 1)),
    (Skip(expansion=4), Ports(8, 8, 1)),
    (Conv(expansion=2, kernel=5), Ports(8, 8, 1)),
    (ConvNeXt(), Ports(8, 8, 1)),
    (ConvNeXt(kernel=5, expansion=2, quadratic=True), Ports(8, 8, 1)),
    (Identity(), Ports(8, 8, 1)),
    (Patchify(), Ports(3, 8, 4)),
    (Downsample(), Ports(8, 16, 2)),
    (Classifier(), Ports(8, 10, 1)),
    (Classifier(norm="before-pool"), Ports(8, 10, 1)),
    (Classifier(norm="none"), Ports(8, 10, 1)),
    (ConvBNBlock(kernel=3), Ports(3, 8, 2)),
    (ConvBNBlock(kernel=1), Ports(8, 16, 1)),
    (MBConv(kernel=3, expansion=1), Ports(8, 8, 1)),
    (MBConv(kernel=5, expansion=3), Ports(8, 16, 1)),
    (MBConv(kernel=7, expansion=6), Ports(8, 8, 2)),
    (MBConv(kernel=3, expansion=6), Ports(8, 8, 1)),
    (Hor(order=2, expansion=4), Ports(8, 8, 1)),
    (Hor(order=5, expansion=2), Ports(16, 16, 1)),
    (Swin(expansion=4), Ports(32, 32, 1)),
    (Swin(expansion=2, shift=3, layer_scale=0.1), Ports(64, 64, 1)),
    (PatchMerging(), Ports(8, 12, 2)),
    (QuadraGlobalFilter(size=8, expansion=4), Ports(8, 8, 1)),
    (QuadraGlobalFilter(size=5, expansion=2, layer_scale=None), Ports(8, 8, 1)),
    (QuadraBN(kernel=7, expansion=4), Ports(8, 8, 1)),
    (QuadraBN(kernel=3, expansion=1), Ports(8, 8, 1)),
]


@pytest.mark.parametrize(("block", "ports"), CASES, ids=repr)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 14)])
def test_block_does_what_it_declares(block: Block, ports: Ports, height: int, width: int) -> None:
    check_block(block, ports, height, width)


def test_every_family_is_checked() -> None:
    assert {type(block) for block, _ in CASES} == {BLOCKS[name] for name in BLOCKS}


def test_quadra_block_is_the_published_one() -> None:
    """Both halves, written out with plain functions in the order of the source."""
    torch.manual_seed(0)
    block = Quadra(kernel=5, expansion=4, layer_scale=0.5).build(Ports(6, 6, 1)).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 6, 7, 7, dtype=torch.float64)

    def norm(t: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        mean = t.mean(1, keepdim=True)
        variance = t.var(1, keepdim=True, correction=0)
        return (t - mean) / (variance + 1e-6).sqrt() * weight[:, None, None] + bias[:, None, None]

    p = block.get_parameter
    weight, bias = p("spatial.branch.mixer.weight"), p("spatial.branch.mixer.bias")

    def branch(t: torch.Tensor, i: int) -> torch.Tensor:
        return F.conv2d(t, weight[i], bias[i], padding=2, groups=6)

    def pointwise(t: torch.Tensor, name: str) -> torch.Tensor:
        name = f"channel.branch.mixer.{name}"
        return F.conv2d(t, p(f"{name}.weight")[:, :, None, None], p(f"{name}.bias"))

    u = norm(x, p("spatial.branch.norm.weight"), p("spatial.branch.norm.bias"))
    y = x + p("spatial.scale")[:, None, None] * (branch(u, 0) * branch(u, 1) + branch(u, 2))
    v = norm(y, p("channel.branch.norm.weight"), p("channel.branch.norm.bias"))
    hidden = pointwise(v, "expand")
    erf_gelu = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    z = y + p("channel.scale")[:, None, None] * pointwise(erf_gelu, "project")
    torch.testing.assert_close(block(x), z, rtol=1e-10, atol=1e-10)


def quadranet(channels: int, depths: tuple[int, ...]) -> SearchSpace:
    stages = "".join(f"  - {{channels: {channels * 2**i}, depth: {d}}}\n" for i, d in enumerate(depths))
    text = (
        "format: quadnas-space/1\ndescription: one\n"
        "candidates: [{block: quadra, kernel: 7, expansion: 4}]\n"
        "stem: {block: patchify, stride: 4}\ndownsample: {block: downsample, stride: 2}\n"
        f"stages:\n{stages}head: {{block: classifier}}\n"
    )
    return space_from(validated(parse_yaml(text, "t"), SpaceFile, "t"), Path("t.yaml"), connects)


@pytest.mark.parametrize(
    ("channels", "depths", "parameters", "gmacs"),
    [
        (64, (2, 3, 18, 2), 16_286_632, 2.900),
        (64, (3, 3, 27, 3), 23_598_824, 4.130),
        (96, (3, 3, 27, 3), 51_617_896, 9.027),
        (128, (2, 3, 18, 2), 62_129_000, 11.091),
        (128, (3, 3, 27, 3), 90_450_408, 15.812),
    ],
    ids=["25-T", "36-T", "36-S", "25-B", "36-B"],
)
def test_published_parameter_and_mac_counts(
    channels: int, depths: tuple[int, ...], parameters: int, gmacs: float
) -> None:
    space = quadranet(channels, depths)
    layers = space.layers([0] * len(space.slots), classes=1000)
    with torch.device("meta"):
        network = Network(layers)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    total, height, width = 0, 224, 224
    for layer in layers:
        block = BLOCKS[layer.block].model_validate(layer.arguments)
        ports = Ports(layer.channels_in, layer.channels_out, layer.stride)
        total += declared_macs(block, ports, height, width)
        height, width = block.output_size(ports, height, width)
    assert total / 1e9 == pytest.approx(gmacs, abs=0.0006)


@pytest.mark.parametrize("name", ["quadra", "skip", "conv", "convnext", "identity"])
def test_shape_keeping_blocks_refuse_to_change_the_shape(name: str) -> None:
    arguments = {"quadra": {"kernel": 3, "expansion": 2}, "skip": {"expansion": 2}, "conv": {"expansion": 2}}
    block = BLOCKS[name].model_validate(arguments.get(name, {}))
    block.check(Ports(8, 8, 1))
    for ports in (Ports(8, 16, 1), Ports(8, 8, 2)):
        with pytest.raises(ConfigError, match=f"'{name}' keeps the shape"):
            block.check(ports)


def test_even_kernels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"kernel.*odd"):
        validated({"kernel": 4, "expansion": 2}, Quadra, "here")


def test_the_classifier_normalises_where_it_is_told_to() -> None:
    found = {
        norm: [(o.kernel.op, o.kernel.h, o.kernel.w) for o in Classifier(norm=norm).operators(PORTS, 7, 5)]
        for norm in ("after-pool", "before-pool", "none")
    }
    pool, linear = ("global-pool", 7, 5), ("fc", 1, 1)
    assert found == {
        "after-pool": [pool, ("layernorm", 1, 1), linear],
        "before-pool": [("layernorm", 7, 5), pool, linear],
        "none": [pool, linear],
    }
    x = 3 + 2 * torch.randn(2, 8, 7, 5)
    norms: dict[str, Callable[[], torch.Tensor]] = {
        "after-pool": lambda: F.layer_norm(x.mean((2, 3)), (8,), eps=1e-6),
        "before-pool": lambda: F.layer_norm(x.permute(0, 2, 3, 1), (8,), eps=1e-6).mean((1, 2)),
        "none": lambda: x.mean((2, 3)),
    }
    for norm, pooled in norms.items():
        module = Classifier.model_validate({"norm": norm}).build(PORTS)
        weight = module.linear.weight
        torch.testing.assert_close(module(x), pooled() @ weight.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [21, 31])
def test_a_receptive_field_as_wide_as_the_map(kernel: int) -> None:
    check_block(Quadra(kernel=kernel, expansion=2), Ports(8, 8, 1), 16, 18)
