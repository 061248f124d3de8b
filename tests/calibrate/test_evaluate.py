"""The evaluation report against figures counted by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quadnas.calibrate.evaluate import covered, error_figures, estimates, evaluate, interval_coverage
from quadnas.calibrate.measured import MeasuredNetwork
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import Coverage, LatencyModel, Price
from quadnas.testing.toy_device import card


class Fixed(LatencyModel):
    """A kernel costs its height in ms; "unknown" costs nothing known, "guess" has a surrogate price."""

    def price(self, kernels: Sequence[Kernel]) -> list[Price]:
        return [
            Price(None, Coverage.UNCOVERED, "unknown")
            if kernel.op == "unknown"
            else Price(float(kernel.h), Coverage.SURROGATE, "a guess", 0.01)
            if kernel.op == "guess"
            else Price(float(kernel.h), Coverage.EXACT)
            for kernel in kernels
        ]


def network(family: str, measured_ms: float, *costs_ms: int, op: str = "conv") -> MeasuredNetwork:
    kernels = tuple(Kernel(op, cost_ms, 1, (1,), 1) for cost_ms in costs_ms)
    return MeasuredNetwork("n", family, kernels, measured_ms)


def test_the_report_counts_what_is_near_and_misses_what_is_unknown() -> None:
    networks = [
        network("a", 100.0, 50, 54),  # 4 % above
        network("a", 100.0, 91),  # 9 % below
        network("b", 100.0, 114),  # 14 % above
        network("b", 100.0, 60, 60),  # 20 % above
        network("b", 100.0, 100, op="unknown"),
    ]
    report = evaluate(Fixed(card(), {}, 1), networks)
    keys = "device models uncovered_models within_5 within_10 within_15 rmspe spearman interval_90 families"
    assert list(report) == keys.split()
    assert (report["device"], report["models"], report["uncovered_models"]) == ("toy", 5, 1)
    assert (report["within_5"], report["within_10"], report["within_15"]) == (1 / 5, 2 / 5, 3 / 5)
    assert report["rmspe"] == pytest.approx(math.sqrt((0.04**2 + 0.09**2 + 0.14**2 + 0.2**2) / 4))
    assert report["spearman"] is None  # all measured alike
    # measured/predicted 0.96, 1.10, 0.88, 0.83 against the toy card's 0.9 to 1.14; the unknown one has none
    assert report["interval_90"] == 2 / 4
    assert report["families"] == {
        "a": {"models": 2, "within_10": 1.0, "interval_90": 1.0},
        "b": {"models": 3, "within_10": 0.0, "interval_90": 0.0},
    }


def test_an_interval_with_surrogate_errors_in_it_counts_for_nothing() -> None:
    networks = [network("a", 100.0, 100), network("a", 130.0, 94, op="guess"), network("a", 130.0, 130)]
    mixed = MeasuredNetwork("n", "a", (*networks[2].kernels, Kernel("guess", 6, 1, (1,), 1)), 200.0)
    model = Fixed(card(), {}, 1)
    assert covered(estimates(model, [*networks, mixed])).tolist() == [True, False, True, True]
    assert evaluate(model, networks)["interval_90"] == 1.0
    assert evaluate(model, [*networks, mixed])["interval_90"] == 2 / 3
    assert interval_coverage(estimates(model, networks), np.array([100.0, 130.0, 130.0])) == 2 / 3
    assert interval_coverage(estimates(model, networks), np.array([100.0, 130.0, 1.0]), 0.8) == 1 / 3


def test_the_bounds_are_inside() -> None:
    report = evaluate(Fixed(card(), {}, 1), [network("a", 100.0, 110), network("a", 200.0, 190)])
    assert (report["within_5"], report["within_10"]) == (0.5, 1.0)


def test_nothing_known_leaves_no_error() -> None:
    report = evaluate(Fixed(card(), {}, 1), [network("a", 1.0, 1, op="unknown")])
    assert (report["within_15"], report["rmspe"], report["spearman"]) == (0.0, None, None)
    assert report["interval_90"] is None


@given(st.permutations(range(2, 9)))
def test_rank_correlation_by_its_textbook_formula(order: list[int]) -> None:
    measured_ms = np.arange(2.0, 9.0)
    predicted_ms = np.array(order, dtype=np.float64)
    n = len(order)
    expected = 1 - 6 * float(((predicted_ms - measured_ms) ** 2).sum()) / (n * (n * n - 1))
    assert error_figures(predicted_ms, measured_ms)["spearman"] == pytest.approx(expected)
