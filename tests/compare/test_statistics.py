"""Intervals, paired tests and rank correlations against scipy, enumeration and known truths."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, ttest_1samp, ttest_rel

from quadnas.compare.statistics import Interval, holm, kendall, mean_interval, paired, same_band

VALUES = st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=9)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_mean_has_students_interval() -> None:
    """By hand: s = 1, t(0.975, 2) = 4.302653, divided by the root of 3."""
    assert mean_interval([1.0, 2.0, 3.0]).half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    values = [0.8, 0.9, 0.85, 0.7]
    found, truth = mean_interval(values, 0.9), ttest_1samp(values, 0).confidence_interval(0.9)
    assert found.value == pytest.approx(0.8125)
    assert found.count == 4
    assert found.low == pytest.approx(truth.low)
    assert found.high == pytest.approx(truth.high)


def test_one_value_has_no_interval_and_one_pair_no_p() -> None:
    assert mean_interval([0.7]) == Interval(0.7, None, None, 1)
    alone = paired([0.9], [0.1])
    assert (alone.difference.half, alone.p, alone.p_t, alone.wins) == (None, None, None, 1)
    with pytest.raises(ValueError, match="shorter"):
        paired([1.0, 2.0], [1.0])


def test_paired_differences_are_those_of_students_paired_test() -> None:
    ours, theirs = [0.81, 0.84, 0.80, 0.90, 0.88], [0.80, 0.80, 0.80, 0.85, 0.89]
    found, truth = paired(ours, theirs), ttest_rel(ours, theirs)
    assert found.p_t == found.p == pytest.approx(truth.pvalue)
    interval = truth.confidence_interval(0.95)
    assert found.difference.low == pytest.approx(interval.low)
    assert found.difference.high == pytest.approx(interval.high)
    assert (found.wins, found.ties, found.losses) == (3, 1, 1)


@given(VALUES)
def test_the_exact_p_counts_all_changes_of_sign(differences: list[float]) -> None:
    signs = list(product((1, -1), repeat=len(differences)))
    sums = [abs(sum(s * d for s, d in zip(sign, differences, strict=True))) for sign in signs]
    share = sum(total >= abs(sum(differences)) for total in sums) / len(signs)
    found = paired(differences, [0.0] * len(differences))
    assert found.p_exact == pytest.approx(min(1.0, share))
    assert found.p_exact >= 2 / 2 ** len(differences) - 1e-12


def test_of_many_pairs_the_sign_test_is_exact() -> None:
    """17 wins and 3 losses in 20: twice the chance of at most 3 heads."""
    found = paired([1.0 + i / 100 for i in range(17)] + [-1.0, -1.1, -1.2], [0.0] * 20)
    assert found.p_exact == pytest.approx(2 * sum(math.comb(20, k) for k in range(4)) / 2**20)


def test_equal_differences_have_an_exact_p_alone() -> None:
    """Student's test would divide by no spread: certain after two seeds."""
    found = paired([0.5, 0.6, 0.7], [0.4, 0.5, 0.6])
    assert found.p_t is None
    assert found.p == pytest.approx(2 / 8)
    assert paired([0.5, 0.6], [0.5, 0.6]).p == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    """A hypothesis is as doubtful as the most doubtful intersection of hypotheses that it is in."""
    places = range(len(p_values))
    groups = [g for size in places for g in combinations(places, size + 1)]
    for place, raised in enumerate(holm(p_values)):
        truth = max(min(1.0, len(g) * min(p_values[i] for i in g)) for g in groups if place in g)
        assert raised == pytest.approx(truth)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12))
def test_kendall_is_tau_b(items: list[tuple[int, int]]) -> None:
    x, y = ([float(item[side]) for item in items] for side in (0, 1))
    found = kendall(x, y, rng(), resamples=5)
    truth = kendalltau(x, y).statistic
    assert found.value == pytest.approx(truth, nan_ok=True)
    assert found.count == math.comb(len(x), 2)
    assert (found.low is None) == math.isnan(truth)


def test_within_bands_only_the_pairs_of_a_band_count() -> None:
    """Size alone ranks everything right, within bands everything is wrong: tau tells them apart."""
    costs = [10.0, 10.5, 11.0, 50.0, 52.0, 55.5]
    x, y = [1.0, 2.0, 3.0, 11.0, 12.0, 13.0], [3.0, 2.0, 1.0, 13.0, 12.0, 11.0]
    band = same_band(costs)
    assert [bool(band[0, j]) for j in range(6)] == [True, True, True, False, False, False]
    assert not band[3, 5]  # 55.5 is more than 1.05 / 0.95 times 50
    found = kendall(x, y, rng(), among=band)
    assert (found.value, found.count) == (-1.0, 5)
    assert kendall(x, y, rng()).value == pytest.approx(3 / 15)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(8, 12)), min_size=2, max_size=9))
def test_banded_tau_by_counting(items: list[tuple[int, int, int]]) -> None:
    agreeing = untied_x = untied_y = pairs = 0
    for (a, b, cost), (c, d, other) in combinations(items, 2):
        if max(cost, other) / min(cost, other) <= 1.1 / 0.9 + 1e-9:
            pairs += 1
            agreeing += ((a > c) - (a < c)) * ((b > d) - (b < d))
            untied_x, untied_y = untied_x + (a != c), untied_y + (b != d)
    x, y, costs = ([float(item[side]) for item in items] for side in range(3))
    found = kendall(x, y, rng(), among=same_band(costs, 0.1), resamples=3)
    assert found.count == pairs
    if untied_x and untied_y:
        assert found.value == pytest.approx(agreeing / math.sqrt(untied_x * untied_y))
    else:
        assert math.isnan(found.value)


def test_the_interval_of_tau_covers_the_truth() -> None:
    """Of a normal pair with correlation r, tau is 2/pi asin r; 95 % of 300 intervals, give or take 4 sigma."""
    generator, r, covered = rng(1), 0.7, 0
    for _ in range(300):
        x, noise = generator.standard_normal((2, 60))
        found = kendall(x.tolist(), (r * x + math.sqrt(1 - r * r) * noise).tolist(), generator, resamples=400)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 2 / math.pi * math.asin(r) <= found.high
    assert abs(covered / 300 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 300)
