"""Bytes saved for the backward pass, against counts by hand and against independent measurements."""

from typing import Any

import pytest
import torch
from torch import nn

from quadnas.compare.kinds.memory import saved_bytes
from quadnas.compare.networks import spec_of
from quadnas.network import Network, build
from quadnas.space.layer import Layer

MIB = 2**20
PYRAMID: dict[str, Any] = {
    "stem": {"block": "patchify", "stride": 4},
    "downsample": {"block": "downsample", "stride": 2},
    "head": {"block": "classifier"},
    "channels": (64, 128, 256, 512),
    "depths": (2, 2, 18, 2),
}
QUADRA = ({"block": "quadra", "kernel": 7, "expansion": 4},)
HOR = ({"block": "hor", "order": (2, 3, 4, 5), "expansion": 4},)
SWIN = ({"block": "swin", "expansion": 4}, {"block": "swin", "shift": 3, "expansion": 4})
WITHOUT = {"layer_scale": None}


def network(**changes: Any) -> Network:
    return Network(spec_of("toy", {**PYRAMID, **changes}).layers)


def test_the_count_of_layers_by_hand() -> None:
    """A linear layer keeps its input, ReLU its output, a product both factors; views and parameters are free."""

    class Known(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = torch.relu(self.first(x))  # keeps x, then its own output
            y = self.second(hidden.view(-1, 16))  # keeps hidden again
            result: torch.Tensor = y * y.exp()  # keeps y, and exp(y), which exp keeps too
            return result

    for device in ("cpu", "meta"):
        with torch.device(device):
            found = saved_bytes(Known(), torch.zeros(32, 8))
        assert found == 4 * 32 * (8 + 16 + 4 + 4)


UNITS = [
    ("skip", {}, 11.0),
    ("conv", {}, 14.1),
    ("quadra", {"kernel": 7}, 14.1),
    ("hor", {"order": 2}, 20.1),
    ("hor", {"order": 5}, 21.8),
    ("swin", {}, 17.6),
]


@pytest.mark.parametrize(("block", "arguments", "units"), UNITS)
def test_a_block_keeps_so_many_copies_of_its_map(block: str, arguments: dict[str, Any], units: float) -> None:
    """In units of one fp32 map, as the sum over its layers gives it; the decimals are statistics of LayerNorm.

    Skip: 2 around LayerNorm, 4 + 4 + 1 in MLP and layer scale. Conv: 3 more. Quadra, which keeps its input alone:
    no more than Conv. The shifts of Swin's windows keep copies too.
    """
    layer = Layer(block=block, channels_in=64, channels_out=64, arguments={"expansion": 4, **arguments})
    with torch.device("meta"):
        x = torch.empty(8, 64, 28, 28, requires_grad=True).contiguous(memory_format=torch.channels_last)
        found = saved_bytes(build(layer), x)
    assert found / x.nbytes == pytest.approx(units, abs=0.11)


@pytest.mark.parametrize(
    ("blocks", "arguments", "mib"),
    [
        (({"block": "skip", "expansion": 4},), {}, 4444),
        (({"block": "conv", "kernel": 7, "expansion": 4},), {}, 5589),
        (QUADRA, {}, 5589),
        (HOR, {}, 8268),
        (SWIN, {}, 6929),
        (QUADRA, WITHOUT, 4829),
        (HOR, WITHOUT, 7509),
    ],
)
def test_the_pyramid_of_table_2(blocks: Any, arguments: dict[str, Any], mib: float) -> None:
    """MiB at batch 64, counted before by other code on other modules (within what masks and tables differ)."""
    with torch.device("meta"):
        found = saved_bytes(
            network(blocks=tuple({**block, **arguments} for block in blocks)), torch.empty(64, 3, 224, 224)
        )
    assert found / MIB == pytest.approx(mib, rel=1e-3)


@pytest.mark.parametrize("layer_scale", [1e-6, None])
def test_quadra_keeps_30_percent_less_than_hor_and_than_swin_without_layer_scale(layer_scale: Any) -> None:
    def count(blocks: Any) -> int:
        blocks = tuple({**block, "layer_scale": layer_scale} for block in blocks)
        with torch.device("meta"):
            return saved_bytes(network(blocks=blocks), torch.empty(2, 3, 224, 224))

    assert count(QUADRA) <= 0.70 * count(HOR)
    if layer_scale is None:
        assert count(QUADRA) <= 0.70 * count(SWIN)


@pytest.mark.parametrize("blocks", [QUADRA, HOR, SWIN])
def test_the_meta_device_counts_what_the_cpu_keeps(blocks: Any) -> None:
    small = {"channels": (32, 64, 128, 256), "depths": (2, 2, 2, 2), "blocks": blocks}
    real = saved_bytes(network(**small), torch.randn(2, 3, 112, 112))
    with torch.device("meta"):
        assert saved_bytes(network(**small), torch.empty(2, 3, 112, 112)) == real
