"""Terms of tiled hardware: counts by hand, and the law that a larger kernel never costs less."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadnas.latency.kernels import Kernel
from quadnas.latency.terms.general import Shapes
from quadnas.latency.terms.known import KNOWN_TERMS
from quadnas.testing.latency import DIMENSIONS, grown

LANE_TERMS = [
    f"lanes{worth}_{what}"
    for worth in (76, 100)
    for what in ("wide_input", "wide_output", "large_input", "large_output", "rows", "large_rows")
]
DEPTHWISE = ["input_large", "engine_cycles_4", "engine_cycles_8", "output_spilled_1m"]
POOL = [
    "groups",
    "input_by_16",
    "tall_input_by_16",
    "tall_input_by_32",
    "area_spilled_256k",
    "input_spilled_1m",
]
TILED = [
    *(("conv", name) for name in [*LANE_TERMS, "output_groups", "input_spilled_256k"]),
    *(("dwconv", name) for name in [*LANE_TERMS, *DEPTHWISE]),
    *(("avg-pool", name) for name in [*LANE_TERMS, *POOL]),
    ("global-pool", "images"),
]


def count(op: str, name: str, kernel: Kernel) -> float:
    return float(KNOWN_TERMS[op][name](Shapes.of([kernel]))[0])


def dwconv(side: int, channels: int, size: int = 3, stride: int = 1, batch: int = 1) -> Kernel:
    return Kernel("dwconv", side, side, (channels,), channels, size, stride, batch)


@pytest.mark.parametrize(
    ("name", "kernel", "cycles"),
    [
        # 28 rows are 7 strips of 4 or 4 strips of 8, 40 channels are 3 groups of 16, 25 taps.
        ("engine_cycles_4", dwconv(28, 40, size=5), 7 * 28 * 3 * 25),
        ("engine_cycles_8", dwconv(28, 40, size=5), 4 * 28 * 3 * 25),
        # 14 output rows of 28, one group; an image after the other.
        ("engine_cycles_8", dwconv(28, 16, stride=2, batch=2), 2 * 2 * 14 * 1 * 9),
        # All 4 rows of a strip are computed where 1 is left over.
        ("engine_cycles_4", dwconv(5, 1), 2 * 5 * 1 * 9),
    ],
)
def test_cycles_of_a_depthwise_engine(name: str, kernel: Kernel, cycles: int) -> None:
    assert count("dwconv", name, kernel) == cycles


@pytest.mark.parametrize(
    ("channels", "worth"), [(16, 16), (76, 76), (96, 76), (128, 76), (129, 129), (200, 152), (1280, 760)]
)
def test_channels_cost_at_most_their_padded_lanes(channels: int, worth: int) -> None:
    kernel = dwconv(14, channels, stride=2, batch=64)
    assert count("dwconv", "lanes76_rows", kernel) == 64 * 49 * 3 * worth


@pytest.mark.parametrize(("side", "share"), [(28, 0), (56, 0), (84, 0.5), (112, 1), (224, 1)])
def test_what_a_wide_map_costs_sets_in_between_the_measured_sides(side: int, share: float) -> None:
    assert count("dwconv", "lanes76_wide_input", dwconv(side, 16)) == share * side * side * 16
    low = Kernel("dwconv", 8, side, (16,), 16)
    assert count("dwconv", "lanes76_wide_input", low) == share * side * 8 * 16


def test_a_large_map_is_one_of_more_than_45_million_elements_over_the_batch() -> None:
    """56 x 56 x 96 at batch 128 are 38.5 million elements, x 144 are 57.8 million."""
    assert count("dwconv", "input_large", dwconv(56, 96, batch=128)) == 0
    assert count("dwconv", "input_large", dwconv(56, 144, batch=128)) == 56 * 56 * 144 * 128


@pytest.mark.parametrize(("side", "spilled"), [(63, 0), (64, 64 * 64 * 64), (65, 65 * 65 * 64)])
def test_a_map_spills_as_a_whole_once_it_outgrows_the_memory(side: int, spilled: int) -> None:
    """With 64 channels a map of 63 x 63 has 254,016 elements, one of 64 x 64 has 262,144."""
    assert count("conv", "input_spilled_256k", Kernel("conv", side, side, (64,), 16)) == spilled


@pytest.mark.parametrize(("op", "name"), TILED)
@pytest.mark.parametrize("dimension", DIMENSIONS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_term_falls_when_a_kernel_grows(op: str, name: str, dimension: str, data: st.DataObject) -> None:
    h, w, by = (data.draw(st.integers(1, 260)) for _ in range(3))
    channels = data.draw(st.integers(1, 2000))
    inputs = (channels, channels) if op == "add" else (channels,)
    cout = data.draw(st.integers(1, 2000)) if op == "conv" else channels
    size, stride = data.draw(st.tuples(st.integers(1, 13), st.integers(1, 4))) if "conv" in op else (1, 1)
    kernel = Kernel(op, h, w, inputs, cout, size, stride, batch=2)
    assert count(op, name, grown(kernel, dimension, by)) >= count(op, name, kernel)
