"""How sure the table is: the noise of one training, and how well a perfect predictor could agree with it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from benchmarks.ground_truth.fit import Fit, Floats, Labels
from quadnas.compare.statistics import Interval, Noise, kendall, same_band

SIMULATIONS = 100


@dataclass(frozen=True, slots=True)
class Quality:
    """How well held-out labels are predicted: the share of variance explained, and Kendall's tau."""

    r2: float
    tau: Interval


def quality(fit: Fit, labels: Labels, seed: int = 0) -> Quality:
    """Of a fit's held-out predictions."""
    residuals = labels.scores - fit.held_out
    r2 = 1 - float((residuals**2).sum() / ((labels.scores - labels.scores.mean()) ** 2).sum())
    return Quality(r2, kendall(fit.held_out.tolist(), labels.scores.tolist(), np.random.default_rng(seed)))


@dataclass(frozen=True, slots=True)
class SeedNoise:
    """Deviations of one training: ``own``, which ranks networks of one seed wrongly, and that of ``seeds``.

    A seed gives all networks the same first weights in their stem and the same batches, which moves all scores
    together; what is left is a network's own.
    """

    own: Noise
    seeds: float


def seed_noise(groups: Mapping[str, Sequence[float]], seeds: int) -> SeedNoise | None:
    """By two-way analysis of variance of the networks that have all of ``seeds``; None with fewer than two."""
    scores = np.array([values[:seeds] for values in groups.values() if len(values) >= seeds])
    if len(scores) < 2 or seeds < 2:
        return None
    networks = len(scores)
    by_seed = scores.mean(0)
    left = scores - scores.mean(1, keepdims=True) - by_seed + scores.mean()
    freedom = (networks - 1) * (seeds - 1)
    own = float((left**2).sum()) / freedom
    common = max(0.0, float(by_seed.var(ddof=1)) - own / networks)
    return SeedNoise(Noise(math.sqrt(own), freedom), math.sqrt(common))


def agreement(groups: Mapping[str, Sequence[float]], seeds: int) -> tuple[float, int]:
    """Kendall's tau between two seeds, averaged over all pairs of the first ``seeds``, and how many networks.

    Only networks with so many seeds count. The tau is nan without two of them.
    """
    repeated = np.array([values[:seeds] for values in groups.values() if len(values) >= seeds])
    if len(repeated) < 2:
        return float("nan"), len(repeated)
    generator = np.random.default_rng(0)
    taus = [
        kendall(repeated[:, a].tolist(), repeated[:, b].tolist(), generator, resamples=1).value
        for a, b in combinations(range(seeds), 2)
    ]
    return float(np.mean(taus)), len(repeated)


def likely_truth(fit: Fit, labels: Labels, noise: Noise) -> Floats:
    """Mean scores (n,) with the variance that true ones must have: fitted, plus the part of the residual that is
    not noise.

    A fit alone is too smooth, the labels alone are too far apart. The residuals are shrunk by the same factor
    for all networks, so that what is left of them has the variance that noise does not explain.
    """
    fitted = fit.model.of(labels.choices)
    residuals = labels.scores - fitted
    noisy = noise.deviation**2 / labels.counts
    real = max(0.0, 1 - float(noisy.mean() / (residuals**2).mean()))
    found: Floats = fitted + np.sqrt(real) * residuals
    return found


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Kendall's tau of a perfect predictor of the mean with one-seed labels: the mean, and the range of 90 %.

    ``pairs``: how many pairs of networks it compares.
    """

    tau: float
    low: float
    high: float
    pairs: int


def ceiling(truth: Floats, noise: Noise, costs_ms: Sequence[float] | None = None, seed: int = 0) -> Ceiling:
    """By simulation of labels; with ``costs_ms`` among networks within +-5 % of a common latency alone."""
    generator = np.random.default_rng(seed)
    among = None if costs_ms is None else same_band(costs_ms)
    found = []
    for _ in range(SIMULATIONS):
        label = truth + generator.normal(0, noise.deviation, len(truth))
        found.append(kendall(truth.tolist(), label.tolist(), generator, among=among, resamples=1))
    taus = [interval.value for interval in found]
    low, high = np.quantile(taus, [0.05, 0.95])
    return Ceiling(float(np.mean(taus)), float(low), float(high), found[0].count)


def spread_within_bands(scores: Floats, costs_ms: Sequence[float]) -> float:
    """The median over networks of the range of scores among those within +-5 % of a common latency with it."""
    band = same_band(costs_ms)
    return float(np.median([np.ptp(scores[row]) for row in band]))
