"""What repeated measurements say: intervals, paired differences over seeds, rank correlations with intervals."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev, variance

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, permutation_test, t, ttest_rel

EXACT_UP_TO = 16
"""Pairs whose 2^n changes of sign are all tried; beyond, the sign test stands in, which is exact as well."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate from ``count`` values and where the truth lies; without bounds where the values tell none."""

    value: float
    low: float | None
    high: float | None
    count: int

    @property
    def half(self) -> float | None:
        """Half its width."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class Paired:
    """Differences of repetitions with the same seed: their mean, and how often each sign came.

    ``p_t``: of Student's paired test, None for one pair or equal differences. ``p_exact``: the share of all
    changes of sign that give a mean at least as far from 0, which assumes symmetry alone; for n pairs it is
    never below 2 / 2^n. Both are two-sided.
    """

    difference: Interval
    wins: int
    ties: int
    losses: int
    p_t: float | None
    p_exact: float

    @property
    def p(self) -> float | None:
        """Of Student's test, or where that has no answer, the exact one; None for one pair: it says nothing."""
        if self.difference.count < 2:
            return None
        return self.p_exact if self.p_t is None else self.p_t


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviation of a single value, pooled over arms with several seeds, and its degrees of freedom."""

    deviation: float
    freedom: int

    def significant(self, seeds: int, confidence: float = 0.95) -> float:
        """The difference of two means of ``seeds`` values that equal arms exceed with 1 - ``confidence`` only.

        Fisher's least significant difference, t s sqrt(2/n): for one comparison, not for the best of many.
        """
        quantile = float(t.ppf((1 + confidence) / 2, self.freedom))
        return quantile * self.deviation * math.sqrt(2 / seeds)


def pooled_noise(groups: Iterable[Sequence[float]]) -> Noise | None:
    """The noise within groups of repeated values; None if no group has two."""
    repeated = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in repeated)
    if not freedom:
        return None
    squares = sum((len(group) - 1) * variance(group) for group in repeated)
    return Noise(math.sqrt(squares / freedom), freedom)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean and Student's interval of it; one value has no interval. Raises ValueError for none."""
    if len(values) < 2:
        return Interval(fmean(values), None, None, len(values))
    mean = fmean(values)
    half = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, len(values))


def paired(ours: Sequence[float], theirs: Sequence[float], confidence: float = 0.95) -> Paired:
    """Ours minus theirs, value by value; raises ValueError for none, or for unequal numbers of them."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    wins, losses = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    spread = len(differences) > 1 and not math.isclose(min(differences), max(differences), abs_tol=1e-12)
    return Paired(
        mean_interval(differences, confidence),
        wins,
        len(differences) - wins - losses,
        losses,
        float(ttest_rel(ours, theirs).pvalue) if spread else None,
        _exact_p(differences, wins, losses),
    )


def _exact_p(differences: Sequence[float], wins: int, losses: int) -> float:
    if len(differences) > EXACT_UP_TO:
        return min(1.0, 2 * float(binom.cdf(min(wins, losses), wins + losses, 0.5)))
    if len(differences) < 2:
        return 1.0
    found = permutation_test(
        (np.asarray(differences),), np.mean, permutation_type="samples", n_resamples=2**EXACT_UP_TO
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values raised so that among all of them a false alarm is no likelier than for one alone.

    Holm's step-down procedure, which assumes nothing of how the comparisons depend on each other.
    """
    raised, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        raised[place] = highest
    return raised


def same_band(costs: Sequence[float], width: float = 0.05) -> NDArray[np.bool_]:
    """(n, n): whether a band of +-``width`` (a fraction of its centre) holds both of two positive costs."""
    cost = np.asarray(costs, dtype=float)
    ratio = np.maximum.outer(cost, cost) / np.minimum.outer(cost, cost)
    return np.asarray(ratio <= (1 + width) / (1 - width) * (1 + 1e-12))


def kendall(
    x: Sequence[float],
    y: Sequence[float],
    generator: np.random.Generator,
    *,
    among: NDArray[np.bool_] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Kendall's tau-b of x (n,) and y (n,), over the pairs ``among`` (n, n) alone where given (``same_band``).

    ``count`` is the number of such pairs. The interval is that of percentiles of a bootstrap over the n items;
    a pair of an item with itself is tied in both and so says nothing. The value is nan, without bounds, where
    one of the two is the same in every pair.
    """
    compared = ~np.eye(len(x), dtype=bool) if among is None else among & among.T & ~np.eye(len(x), dtype=bool)
    signs = [np.sign(np.subtract.outer(values, values)) * compared for values in map(np.asarray, (x, y))]
    forms = (signs[0] * signs[1], abs(signs[0]), abs(signs[1]))

    def taus(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """weights (samples, n): how often each item was drawn -> (samples,)."""
        agreeing, untied_x, untied_y = (((weights @ form) * weights).sum(1) for form in forms)
        known = (untied_x > 0) & (untied_y > 0)
        return np.where(known, agreeing / np.sqrt(np.where(known, untied_x * untied_y, 1.0)), np.nan)

    tau = float(taus(np.ones((1, len(x))))[0])
    pairs = int(compared.sum()) // 2
    if math.isnan(tau):
        return Interval(tau, None, None, pairs)
    drawn = taus(generator.multinomial(len(x), [1 / len(x)] * len(x), size=resamples).astype(float))
    drawn, tail = drawn[~np.isnan(drawn)], (1 - confidence) / 2
    if not drawn.size:
        return Interval(tau, None, None, pairs)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(tau, float(low), float(high), pairs)
