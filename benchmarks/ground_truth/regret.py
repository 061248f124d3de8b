"""How far what searches chose is from the best within their limits, in deviations of one training."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from benchmarks.ground_truth.analysis import seed_noise
from benchmarks.ground_truth.answers import Answer, SearchRow
from benchmarks.ground_truth.fit import (
    Fit,
    Floats,
    finalists,
    fit,
    grouped,
    labels_of,
    latencies,
    whole_space,
)
from benchmarks.ground_truth.plan import FINAL_SEEDS, Truth, network_of
from benchmarks.ground_truth.table import Row
from quadnas.compare.statistics import Noise
from quadnas.errors import DataError
from quadnas.latency.table import CostTable
from quadnas.space.architecture import Architecture
from quadnas.space.search_space import SearchSpace

HIGHER_IS_BETTER = {"accuracy": 1.0, "loss": -1.0}
"""The sign of a score."""


def final_scores(space: SearchSpace, rows: Iterable[Row], key: str) -> dict[str, dict[int, float]]:
    """``key`` of the final trainings by network (``network_of``) and seed."""
    scores: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.seed in FINAL_SEEDS:
            network = network_of(space, row.architecture)
            scores.setdefault(network, {})[row.seed] = float(getattr(row, key))
    return scores


def levelled(scores: Mapping[str, Mapping[int, float]], best: Sequence[str]) -> dict[str, dict[int, float]]:
    """Scores by network and seed, less what a seed adds to all networks alike.

    That is known from the finalists, the networks ``best``: seeds that some of them still lack are left out.
    """
    whole = [seed for seed in FINAL_SEEDS if all(seed in scores.get(name, {}) for name in best)]
    means = {seed: fmean(scores[name][seed] for name in best) for seed in whole}
    return {
        name: {seed: found[seed] - means[seed] + fmean(means.values()) for seed in whole if seed in found}
        for name, found in scores.items()
    }


def best_score(contenders: Sequence[Mapping[int, float]], sign: float) -> float:
    """The mean score of the best contender, without the winner's curse.

    The highest of noisy means is too high. Here half of the seeds, which all of them have, choose the best, and
    the other half say how good it is: the average over all divisions into halves. With few seeds it is too low
    instead, for few trainings choose badly.
    """
    scores = np.array([list(found.values()) for found in contenders])
    seeds = range(scores.shape[1])
    found = []
    for half in combinations(seeds, len(seeds) // 2):
        best = int((sign * scores[:, half].mean(1)).argmax())
        found.append(float(np.delete(scores[best], half).mean()))
    return fmean(found)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The score of a chosen ``network``, and by how many deviations of one training the best is better.

    The score is the mean of so many ``trainings`` that nobody chose by, the best is chosen and scored by
    ``best_trainings`` of every finalist; if there are none, both come from the fit.
    """

    network: str
    score: float
    regret: float
    trainings: int
    best_trainings: int


class Judge:
    """Judges answers by ``key``, accuracy or loss. Raises DataError while the noise of a training is unknown."""

    def __init__(
        self,
        truth: Truth,
        space: SearchSpace,
        tables: Mapping[str, CostTable],
        rows: Sequence[Row],
        key: str,
    ) -> None:
        self._space, self._sign = space, HIGHER_IS_BETTER[key]
        choosing = [row for row in rows if row.seed not in FINAL_SEEDS]
        seeds = seed_noise(grouped(choosing, key), truth.seeds)
        if seeds is None:
            raise DataError(
                f"fewer than two networks have {truth.seeds} seeds: nothing is known of the noise; train more"
            )
        self.noise: Noise = seeds.own
        self.labels = labels_of(space, choosing, key)
        self.fit: Fit = fit(space, self.labels)
        self._fitted: Floats = whole_space(self.fit.model)
        self._costs_ms = {device: latencies(table) for device, table in tables.items()}
        self._finalists = finalists(truth, space, tables, rows)
        self._names = [network_of(space, choices) for choices in self._finalists]
        self._scores = levelled(final_scores(space, rows, key), self._names)
        self.final_seeds = len(self._scores.get(self._names[0], {}))

    def judge(self, answer: Answer) -> Verdict:
        """What an answer is worth beside the best within its limit."""
        network = network_of(self._space, answer.architecture)
        scores = self._scores.get(network, {})
        costs_ms = self._costs_ms[answer.device]
        if scores and self.final_seeds > 1:
            best = best_score(
                [
                    self._scores[name]
                    for name, choices in zip(self._names, self._finalists, strict=True)
                    if costs_ms[choices] <= answer.limit_ms
                ],
                self._sign,
            )
            score, trainings = fmean(scores.values()), (len(scores), self.final_seeds)
        else:
            best = float(self._sign * (self._sign * self._fitted[costs_ms <= answer.limit_ms]).max())
            choices = self._space.choices(Architecture.parse(answer.architecture))
            score, trainings = float(self._fitted[choices]), (0, 0)
        return Verdict(network, score, self._sign * (best - score) / self.noise.deviation, *trainings)


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer with its search's strategy, seed and seconds of training, and its verdicts by score."""

    strategy: str
    seed: int
    answer: Answer
    training_seconds: float
    verdicts: Mapping[str, Verdict]

    @property
    def point(self) -> tuple[str, float]:
        """Device and share of its range."""
        return self.answer.device, self.answer.share


def judged(searches: Iterable[SearchRow], judges: Mapping[str, Judge]) -> list[Judged]:
    """Every answer of every search."""
    return [
        Judged(
            row.strategy, row.seed, answer, row.seconds,
            {key: judge.judge(answer) for key, judge in judges.items()},
        )
        for row in searches
        for answer in row.answers
    ]  # fmt: skip
