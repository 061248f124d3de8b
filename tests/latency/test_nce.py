"""The layout of convolutions on the Myriad X, against hand counts and a search of every cut, one by one."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadnas.latency.devices import load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.terms.general import Shapes
from quadnas.latency.terms.nce import MACS_PER_CYCLE, TERMS, cuts
from quadnas.testing.latency import multiply_accumulates


def term(kernel: Kernel, name: str) -> float:
    op = kernel.op.split("-")[0]
    return float(TERMS[op][name](Shapes.of([kernel]))[0])


@pytest.mark.parametrize(
    ("kernel", "cycles"),
    [
        # Per pixel 64 products with one block; 32 + 5 with two, 128 outputs at a time; 2 x (16 + 11) with four.
        (Kernel("conv", 14, 14, (64,), 128), 196 * 37),
        # 576 and 288 weights per block do not fit into 256: four blocks of 16 x 9, plus 11.
        (Kernel("conv", 56, 56, (64,), 64, 3), 3136 * 155),
        # Three channels in four blocks: 49 + 11, 64 outputs at a time; padding takes 2,200 for each channel.
        (Kernel("conv", 28, 28, (3,), 32, 7, 2), 196 * 60 + 3 * 2200),
        # Two parts of 40 channels in 16 blocks: 3 x 49 + 31, 8 x 16 outputs, for each part.
        (Kernel("conv", 14, 14, (80,), 128, 7), 196 * (5 * 49 + 31) * 8),
        # 16 channels at a time in 16 blocks: 25 + 31; two would be 50 + 31 in 16 groups each.
        (Kernel("dwconv", 7, 7, (64,), 64, 5), 49 * 4 * 56),
        # 32 at a time in 8 blocks: 4 x 9 + 19.
        (Kernel("dwconv", 14, 14, (96,), 96, 3), 196 * 3 * 55),
        # A kernel of 17 x 17 runs in software, 32 products per cycle.
        (Kernel("conv", 20, 20, (8,), 8, 17), 400 * 64 * 289 / 32),
    ],
)
def test_cycles_by_hand(kernel: Kernel, cycles: float) -> None:
    assert term(kernel, "engine_cycles") == pytest.approx(cycles, rel=1e-12)


def test_what_is_cut_by_hand() -> None:
    """A 7 x 7 convolution of 768 to 768 channels on 28 x 28.

    Of the output, 12 rows of 32 pixels fit into a tile, so strips have 10, of which 6 are borders: 6 strips,
    28 + 5 x 6 = 58 rows in all. 16 blocks hold 80 channels (5 x 49 <= 256), so there are 10 parts of 77.
    """
    kernel = Kernel("conv-bn-relu", 28, 28, (768,), 768, 7)
    assert cuts([kernel]) == [(10, 6, 48)]
    assert term(kernel, "engine_cycles") == 58 * 28 * 10 * 48 * (5 * 49 + 31)
    assert term(kernel, "engine_weights") == 6 * 768 * 768 * 49
    assert term(kernel, "engine_partial_descriptors") == 10 * 6 * 48
    assert term(kernel, "engine_summed") == 9 * 28 * 28 * 768


def mode_cost(cin: int, cout: int, k: int, stride: int, width: int, height: int) -> tuple[float, int]:
    found = []
    for mode, overhead in enumerate((0, 5, 11, 19, 31)):
        blocks = 2**mode
        per_block = -(-cin // blocks)
        line = 2 * 8 * -(-width // 8)
        held = min(128 * 1024 // (per_block * blocks * line), height)
        needed = min(k + stride + 2 + (width <= 8), height)
        if per_block * k * k <= 256 and held >= needed:
            count = -(-cout // min(256 // blocks, 8 * -(-cout // 8)))
            found.append((float((per_block * k * k + overhead) * count), count))
    return min(found, default=(math.inf, 0))


def walk(size: int, k: int, stride: int, part: int) -> tuple[int, int] | None:
    """Tiles along a side, walked one by one, and the lines computed in all of them."""
    out, border = -(-size // stride), (k // 2) // stride
    longest = min((part - 1) // stride + 1, out)
    if longest == out:
        return 1, out
    start = tiles = lines = 0
    while start < out:
        before = border if start else 0
        end = min(start - before + longest, out)
        useful = end if end == out else end - border
        if useful <= start:
            return None
        lines += end - (start - before)
        start, tiles = useful, tiles + 1
    return tiles, lines


def searched(kernel: Kernel) -> tuple[float, int, int, int, float]:
    """The cheapest of all cuts by the compiler's measure: measure, parts, tiles, descriptors, cycles."""
    h, w, cin, cout, k, s = kernel.h, kernel.w, kernel.cin, kernel.cout, kernel.kernel, kernel.stride
    best: tuple[float, int, int, int, float] = (math.inf, 0, 0, 0, 0.0)
    for parts in range(1, 16):
        channels = -(-cin // parts)
        for columns in range(1, 16):
            across = walk(w, k, s, -(-w // columns))
            if across is None or (columns > 1 and -(-w // columns) < 64):
                continue
            fed = -(-w // columns) if across[0] > 1 else w
            wide = min((-(-w // columns) - 1) // s + 1, -(-w // s))
            for rows in range(1, 16):
                piece = -(-h // rows)
                down = walk(h, k, s, piece)
                high = min((piece - 1) // s + 1, -(-h // s))
                if (
                    down is None
                    or (rows > 1 and piece < k)
                    or 2 * high * 8 * -(-wide // 8) * cout > 576 * 1024
                ):
                    continue
                cost, count = mode_cost(channels, cout, k, s, fed, piece if down[0] > 1 else h)
                tiles, pixels = across[0] * down[0], across[1] * down[1]
                measure = tiles * cost * parts + (parts - 1) * pixels * cout
                if measure < best[0]:
                    best = measure, parts, tiles, count, pixels * parts * cost
                if cost < math.inf:
                    break
    return best


SHAPES = st.builds(
    lambda h, w, cin, cout, k, s: Kernel("conv", h, w, (cin,), cout, k, s),
    st.integers(1, 230),
    st.integers(1, 230),
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.integers(1, 13),
    st.sampled_from((1, 2, 4)),
)


@settings(max_examples=150, deadline=None)
@given(SHAPES)
def test_the_cut_is_the_best_of_all(kernel: Kernel) -> None:
    measure, parts, tiles, count, cycles = searched(kernel)
    found = cuts([kernel])[0]
    if math.isinf(measure):
        assert found == (0, 0, 0)
        assert term(kernel, "engine_cycles") == pytest.approx(multiply_accumulates(kernel) / 32)
    else:
        assert found == (parts, tiles, count)
        padding = 2200 * kernel.cin if kernel.kernel > kernel.stride > 1 else 0
        assert term(kernel, "engine_cycles") == pytest.approx(cycles + padding)


@settings(max_examples=200, deadline=None)
@given(SHAPES, st.sampled_from(("conv", "dwconv")))
def test_no_kernel_beats_the_engine(kernel: Kernel, op: str) -> None:
    drawn = Kernel(op, kernel.h, kernel.w, kernel.inputs, kernel.cin, kernel.kernel, kernel.stride)
    assert term(drawn, "engine_cycles") * MACS_PER_CYCLE >= multiply_accumulates(drawn)


def test_many_shapes_at_once_equal_one_at_a_time() -> None:
    found = [Kernel("conv", side, side, (3 * side,), 4 * side, k) for side in (7, 56, 224) for k in (1, 3, 7)]
    together = TERMS["conv"]["engine_cycles"](Shapes.of(found))
    assert np.array_equal(together, [term(kernel, "engine_cycles") for kernel in found])
    assert cuts(found) == [cuts([kernel])[0] for kernel in found]


def test_depthwise_prices_never_fall() -> None:
    """Depthwise convolutions are never cut, so no step goes down, whether channels, map or kernel grow."""
    model = load_device("myriadvpu")

    def rises(kernels: list[Kernel]) -> bool:
        prices = [price.latency_ms or 0.0 for price in model.price(kernels)]
        return all(one <= other for one, other in pairwise(prices))

    for k in (1, 2, 3, 4, 5, 7, 9, 11, 13):
        for stride in (1, 2):
            for side in (7, 14, 28, 56, 112):
                assert rises([Kernel("dwconv", side, side, (c,), c, k, stride) for c in range(1, 700, 3)])
            assert rises([Kernel("dwconv", side, side, (96,), 96, k, stride) for side in range(1, 130)])
    for side in (7, 14, 28, 56, 112):
        assert rises([Kernel("dwconv", side, side, (96,), 96, k) for k in range(1, 14)])


def test_another_cut_seldom_costs_less() -> None:
    """On the maps of a network, 8 more channels make fewer than 1 % of convolutions cheaper."""
    model = load_device("myriadvpu")
    falls = []
    for k in (1, 3, 5, 7):
        for side in (7, 14, 28, 56, 112):
            for other in (16, 64, 256):
                for kernels in (
                    [Kernel("conv", side, side, (c,), other, k) for c in range(8, 520, 8)],
                    [Kernel("conv", side, side, (other,), c, k) for c in range(8, 520, 8)],
                ):
                    prices = [price.latency_ms or 0.0 for price in model.price(kernels)]
                    falls += [one > 1.001 * larger for one, larger in pairwise(prices)]
    assert sum(falls) < 0.01 * len(falls)
