"""Terms of processors with wide vectors: counts by hand, and the law that a larger kernel never costs less."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadnas.latency.kernels import Kernel
from quadnas.latency.terms import vectors
from quadnas.latency.terms.general import Shapes
from quadnas.latency.terms.known import KNOWN_TERMS
from quadnas.testing.latency import DIMENSIONS, grown

TERMS = [(op, name) for op, terms in vectors.TERMS.items() for name in terms]


def count(op: str, name: str, kernel: Kernel) -> float:
    return float(KNOWN_TERMS[op][name](Shapes.of([kernel]))[0])


@pytest.mark.parametrize(
    ("name", "kernel", "expected"),
    [
        # 40 channels fill 3 registers of 16; on 1 x 1 only the middle of 49 taps lies inside.
        ("lane_macs", Kernel("dwconv", 1, 1, (40,), 40, 7), 48),
        ("lane_output", Kernel("dwconv", 28, 28, (40,), 40, 3, 2), 14 * 14 * 48),
        ("macs_large", Kernel("dwconv", 28, 28, (40,), 40, 7), 0),
        ("macs_large", Kernel("dwconv", 1, 1, (40,), 40, 9), 40),
        # 49 positions are 9 strips of 6.
        ("lane_macs", Kernel("conv", 7, 7, (10,), 20), 54 * 32 * 10),
        ("weights_beyond", Kernel("conv", 7, 7, (512,), 1024), 512 * 1024 - 256e3),
        ("output_beyond", Kernel("gelu", 56, 56, (64,), 64), 56 * 56 * 64 - 128e3),
        ("input", Kernel("global-pool", 7, 7, (64,), 64), 49 * 64),
    ],
)
def test_counts(name: str, kernel: Kernel, expected: float) -> None:
    assert count(kernel.op, name, kernel) == expected


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(TERMS), st.integers(1, 64), st.integers(1, 700), st.integers(1, 1200), st.integers(1, 13),
    st.integers(1, 4), st.sampled_from(DIMENSIONS), st.integers(1, 40),
)  # fmt: skip
def test_no_term_falls_when_a_kernel_grows(
    term: tuple[str, str],
    side: int,
    channels: int,
    cout: int,
    size: int,
    stride: int,
    dimension: str,
    by: int,
) -> None:
    op, name = term
    inputs = (channels,) * (2 if op in ("add", "mul") else 1)
    kernel = Kernel(op, side, side, inputs, cout if op == "conv" else channels, size, stride)
    assert count(op, name, grown(kernel, dimension, by)) >= count(op, name, kernel) >= 0
