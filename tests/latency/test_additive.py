"""Prices of the additive back-end against sums worked out by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from quadnas.errors import ConfigError, DataError
from quadnas.latency.backends.additive import Additive
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import Coverage
from quadnas.testing.toy_device import ARRAYS, card, model


def test_a_convolution_is_launch_plus_peak_plus_terms() -> None:
    # 2 images x 4 x 4 outputs (7 / 2 rounded up) x 8 x 16 x 3 x 3 = 36,864 MAC: 0.036864 ms at the peak;
    # moved: 2 x 7 x 7 x 8 in + 2 x 16 x 16 out + 1,152 weights = 2,448 elements: 0.009792 ms, hidden by it;
    # terms: 2e-6 ms x 36,864 + 0.5 ms per call.
    price = model().price([Kernel("conv-bn-relu", 7, 7, (8,), 16, 3, 2, batch=2)])[0]
    assert price.latency_ms == pytest.approx(0.001 + 0.036864 + 0.073728 + 0.5, rel=1e-12)
    assert (price.coverage, price.reason, price.surrogate_error) == (Coverage.EXACT, "", 0.0)


def test_an_elementwise_operator_is_bound_by_traffic() -> None:
    # 2 x 7 x 7 x (8 + 8 + 8) = 2,352 elements: 0.009408 ms at the peak, 1e-3 ms each by its term.
    price = model().price([Kernel("add", 7, 7, (8, 8), 8, batch=2)])[0]
    assert price.latency_ms == pytest.approx(0.001 + 0.009408 + 2.352, rel=1e-12)


def test_a_stand_in_is_named_with_its_factor_and_error() -> None:
    kernel = Kernel("mul", 7, 7, (8, 8), 8, batch=2)
    price = model().price([kernel])[0]
    assert price.latency_ms == pytest.approx(3 * (0.001 + 0.009408 + 2.352), rel=1e-12)
    assert price.coverage is Coverage.SURROGATE and price.surrogate_error == pytest.approx(0.1)
    assert "mul priced as 3 x add" in price.reason


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (Kernel("conv", 28, 7, (8,), 8, 3, batch=2), "height 28 outside the measured 7-14"),
        (Kernel("conv", 7, 28, (8,), 8, 3, batch=2), "width 28 outside the measured 7-14"),
        (Kernel("conv", 7, 7, (4,), 8, 3, batch=2), "input channels 4 outside the measured 8-64"),
        (Kernel("conv", 7, 7, (8,), 65, 3, batch=2), "output channels 65 outside the measured 8-64"),
        (Kernel("conv", 7, 7, (8,), 8, 2, batch=2), "kernel 2 not among the measured 1, 3"),
        (Kernel("conv", 7, 7, (8,), 8, 3, 4, batch=2), "stride 4 not among the measured 1, 2"),
    ],
)
def test_a_shape_outside_the_measured_ranges_is_a_surrogate(kernel: Kernel, reason: str) -> None:
    price = model().price([kernel])[0]
    assert price.coverage is Coverage.SURROGATE and reason in price.reason
    assert price.surrogate_error == pytest.approx(0.2)


def test_another_batch_than_the_measured_one_is_extrapolated() -> None:
    price = model(batch=4).price([Kernel("conv", 7, 7, (8,), 8, 3, batch=4)])[0]
    assert price.coverage is Coverage.SURROGATE and "batch 4 outside the measured 2" in price.reason


TRANSFERRED = {"basis": "transferred", "source": "a sister device", "error": 0.15, "batches": [1, 4]}
SPAN = {"h": [7, 28], "cin": [8, 64], "cout": [8, 64], "kernels": [3, 7], "strides": [1]}
MEASURED = {"batches": [2, 2], **SPAN, "h": [7, 14], "kernels": [1, 3]}


@pytest.mark.parametrize(
    ("side", "size", "coverage", "error", "reason"),
    [
        (14, 3, Coverage.EXACT, 0.0, ""),
        (14, 7, Coverage.SURROGATE, 0.15, "conv transferred from a sister device"),
        (28, 3, Coverage.SURROGATE, 0.15, "conv transferred from a sister device"),
        (14, 5, Coverage.SURROGATE, 0.2, "conv extrapolated: kernel 5 not among the measured 1, 3"),
        (
            30,
            7,
            Coverage.SURROGATE,
            0.35,
            "conv transferred from a sister device; conv extrapolated: height 30 outside the transferred 7-28",
        ),
    ],
)
def test_every_range_answers_with_its_basis(
    side: int, size: int, coverage: Coverage, error: float, reason: str
) -> None:
    ranges = {"conv": [MEASURED, {**TRANSFERRED, **SPAN}], "add": [MEASURED], "fc": [MEASURED]}
    price = Additive(card(sampled=ranges), ARRAYS, 2).price(
        [Kernel("conv", side, 7, (8,), 8, size, batch=2)]
    )[0]
    assert (price.coverage, price.reason) == (coverage, reason)
    assert price.surrogate_error == pytest.approx(error)


@pytest.mark.parametrize("changes", [{"source": ""}, {"basis": "measured"}, {"error": -0.1}])
def test_a_transferred_range_without_its_source_or_error_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="toy card: sampled"):
        card(sampled={"conv": [{**TRANSFERRED, **SPAN, **changes}]})


def test_a_fused_kernel_is_the_sum_of_its_parts_and_weighs_their_errors() -> None:
    conv, add, mul, fused = (
        model().price([kernel])[0]
        for kernel in (
            Kernel("conv-bn", 14, 14, (8,), 16, 3, 2, batch=2),
            Kernel("add", 7, 7, (16,), 16, batch=2),
            Kernel("mul", 7, 7, (16,), 16, batch=2),
            Kernel("conv-bn-add-mul-relu", 14, 14, (8,), 16, 3, 2, batch=2),
        )
    )
    assert conv.latency_ms and add.latency_ms and mul.latency_ms
    total_ms = conv.latency_ms + add.latency_ms + mul.latency_ms
    assert fused.latency_ms == pytest.approx(total_ms, rel=1e-12)
    assert fused.coverage is Coverage.SURROGATE
    assert fused.surrogate_error == pytest.approx(0.1 * mul.latency_ms / total_ms)


def test_one_unknown_part_makes_the_kernel_uncovered() -> None:
    price = model().price([Kernel("conv-bn-softmax", 7, 7, (8,), 8, batch=2)])[0]
    assert price.latency_ms is None and price.coverage is Coverage.UNCOVERED
    assert "'softmax' was never measured on toy" in price.reason and "add, conv, fc, mul" in price.reason


def test_a_kernel_of_another_batch_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match=r"model\.kernels"):
        model().price([Kernel("conv", 7, 7, (8,), 8)])


@pytest.mark.parametrize(
    ("op", "values"),
    [
        ("conv", np.array([1.0])),
        ("conv", np.array([[1.0, 1.0]])),
        ("conv", np.array([1.0, np.nan])),
        ("conv", np.array([1.0, np.inf])),
        ("conv", np.array([1.0, -1e-9])),
        ("conv", np.array([1.0, 1.0], dtype=np.float32)),
        ("pool", np.array([1.0])),
    ],
)
def test_arrays_that_do_not_fit_the_card_are_refused(op: str, values: NDArray[np.float64]) -> None:
    with pytest.raises(DataError, match="'toy'"):
        Additive(card(), {**ARRAYS, op: values}, 2)


def test_an_unknown_term_is_refused() -> None:
    terms = {"conv": ["macs", "magic"], "add": ["elements"], "fc": ["weights"]}
    with pytest.raises(DataError, match="unknown terms of 'conv': magic; known: calls, macs"):
        Additive(card(terms=terms), ARRAYS, 2)
