"""Networks as a whole: stochastic depth by position, gradient checkpointing, the body as a backbone."""

import copy

import pytest
import torch
from torch import Tensor

from quadnas.network import Backbone, Network
from quadnas.ops.drop_path import DropPath
from quadnas.space.layer import Layer
from tests.numerics.saved import saved_bytes


def layers() -> list[Layer]:
    """Two stages of two QuadraBlocks, 8 and 16 channels, and a MobileNet stage that shrinks in its first block."""

    def layer(block: str, channels_in: int, channels_out: int, stride: int = 1, **arguments: object) -> Layer:
        return Layer(
            block=block,
            channels_in=channels_in,
            channels_out=channels_out,
            stride=stride,
            arguments=arguments,
        )

    return [
        layer("patchify", 3, 8, 4),
        *[layer("quadra", 8, 8, kernel=3, expansion=2, layer_scale=0.5)] * 2,
        layer("downsample", 8, 16, 2),
        *[layer("quadra", 16, 16, kernel=3, expansion=2, layer_scale=0.5)] * 2,
        layer("mbconv", 16, 24, 2, expansion=2),
        layer("mbconv", 24, 24, expansion=2),
        layer("classifier", 24, 5),
    ]


def test_drop_path_rises_linearly_over_the_residual_blocks() -> None:
    network = Network(layers())
    network.set_drop_path(0.3)
    rates = [[m.rate for m in layer.modules() if isinstance(m, DropPath)] for layer in network.layers]
    expected = [[], [0, 0], [0.1, 0.1], [], [0.2, 0.2], [0.3, 0.3], [], [], []]  # two halves in a QuadraBlock
    for found, wanted in zip(rates, expected, strict=True):
        assert found == pytest.approx(wanted)


def forward_backward(network: Network, images: Tensor) -> Tensor:
    logits: Tensor = network(images)
    logits.sum().backward()
    return logits


def test_gradient_checkpointing_changes_the_memory_and_not_one_bit_of_the_gradients() -> None:
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network = Network(layers())
    network.set_drop_path(0.5)
    kept, gradients = [], []
    for checkpointing in (False, True):
        network.checkpointing = checkpointing
        network.zero_grad()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            kept.append(saved_bytes(lambda: forward_backward(network, images), network.parameters()))
        gradients.append([p.grad for p in network.parameters()])
    assert all(map(torch.equal, *gradients))
    # what passes between the layers: the images in channels-last, 8@16x16 three times, 16@8x8 three, 24@4x4 two
    borders = 4 * 4 * (3 * 64 * 64 + 3 * 8 * 16 * 16 + 3 * 16 * 8 * 8 + 2 * 24 * 4 * 4)
    assert kept[1] == pytest.approx(borders, rel=0.01)
    assert kept[0] > 3 * kept[1]


def test_gradient_checkpointing_counts_a_batch_once() -> None:
    """Running statistics of batch normalisation: a second update by the repeated pass would change both."""
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = Network(layers())
    repeated = copy.deepcopy(plain)
    repeated.checkpointing = True
    for network in (plain, repeated):
        for _ in range(2):
            forward_backward(network, images)
    found, expected = dict(repeated.named_buffers()), dict(plain.named_buffers())
    statistics = [name for name in expected if name.endswith(("running_mean", "running_var"))]
    assert statistics and all(torch.equal(found[name], expected[name]) for name in statistics)


def test_nothing_is_checkpointed_in_evaluation() -> None:
    network = Network(layers()).eval()
    images = torch.randn(1, 3, 32, 32)
    expected = network(images)
    network.checkpointing = True
    assert torch.equal(network(images), expected)


def test_a_backbone_gives_the_last_map_of_every_stage() -> None:
    network = Network(layers()).eval()
    backbone = Backbone(layers(), network).eval()
    maps = backbone(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert backbone.channels == (8, 16, 24)
    assert backbone.strides == (4, 8, 16)
    assert [tuple(m.shape) for m in maps] == [(2, 8, 16, 16), (2, 16, 8, 8), (2, 24, 4, 4)]
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network.layers[-1](maps[-1]), network(images))
    classifier = sum(p.numel() for p in network.layers[-1].parameters())
    whole = sum(p.numel() for p in network.parameters())
    assert sum(p.numel() for p in backbone.parameters()) == whole - classifier


def test_a_backbone_takes_images_that_no_stride_divides() -> None:
    backbone = Backbone(layers(), Network(layers()))
    assert [tuple(m.shape[2:]) for m in backbone(torch.randn(1, 3, 75, 107))] == [(18, 26), (9, 13), (5, 7)]


def test_a_whole_network_compiles_without_a_break_and_is_the_same_function() -> None:
    network = Network(layers()).eval()
    images = torch.randn(2, 3, 64, 64)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), network(images))


def test_gradient_checkpointing_compiles_without_a_break() -> None:
    plain = Network(layers())
    repeated = copy.deepcopy(plain)
    repeated.checkpointing = True
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    forward_backward(plain, images)
    torch.compile(repeated, backend="aot_eager", fullgraph=True)(images).sum().backward()
    for found, expected in zip(repeated.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)
    torch.testing.assert_close(dict(repeated.named_buffers()), dict(plain.named_buffers()))
