"""The work that terms count, against counts one position and tap at a time."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from quadnas.latency.kernels import Kernel
from quadnas.latency.terms.general import TERMS, Shapes, peak_work
from quadnas.testing.latency import multiply_accumulates

SIDES = st.integers(1, 40)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(("conv", "dwconv")),
    SIDES,
    SIDES,
    st.integers(1, 9),
    st.integers(1, 13),
    st.integers(1, 4),
)
def test_multiply_accumulates(op: str, h: int, w: int, channels: int, size: int, stride: int) -> None:
    kernel = Kernel(op, h, w, (channels,), channels, size, stride, batch=3)
    macs, _ = peak_work(op, Shapes.of([kernel]))
    assert macs.tolist() == [multiply_accumulates(kernel)]
    assert TERMS[op]["macs"](Shapes.of([kernel])).tolist() == macs.tolist()


def test_taps_at_the_border_of_a_small_map() -> None:
    """7 x 7 with kernel 7: along a side 4 + 5 + 6 + 7 + 6 + 5 + 4 = 37 of 49 taps lie inside."""
    assert Shapes.of([Kernel("dwconv", 7, 7, (1,), 1, 7)]).taps.tolist() == [37 * 37]


def test_many_shapes_at_once_equal_one_at_a_time() -> None:
    found = [Kernel("dwconv", 9, 14, (3,), 3, size, 2, batch=2) for size in (1, 4, 7)]
    together = Shapes.of(found).taps
    assert np.array_equal(together, np.concatenate([Shapes.of([kernel]).taps for kernel in found]))
