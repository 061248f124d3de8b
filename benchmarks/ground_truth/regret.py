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
from benchmarks.ground_truth.plan import FINAL_SEEDS, Truth
from benchmarks.ground_truth.table import Row
from quadnas.compare.statistics import Noise
from quadnas.errors import DataError
from quadnas.latency.table import CostTable
from quadnas.space.architecture import Architecture
from quadnas.space.search_space import SearchSpace

HIGHER_IS_BETTER = {"accuracy": 1.0, "loss": -1.0}
"""The sign of a score."""


def levelled(rows: Iterable[Row], key: str) -> dict[str, dict[int, float]]:
    """The final trainings' ``key`` by network and seed, less what a seed adds to all networks alike.

    That is known from the networks that have all final seeds; empty while there is none.
    """
    scores: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.seed in FINAL_SEEDS:
            scores.setdefault(row.architecture, {})[row.seed] = float(getattr(row, key))
    whole = [found for found in scores.values() if len(found) == len(FINAL_SEEDS)]
    if not whole:
        return {}
    means = {seed: fmean(found[seed] for found in whole) for seed in FINAL_SEEDS}
    level = fmean(means.values())
    return {
        name: {seed: value - means[seed] + level for seed, value in found.items()}
        for name, found in scores.items()
    }


def best_score(contenders: Sequence[Mapping[int, float]], sign: float) -> float:
    """The mean score of the best contender, without the winner's curse.

    The highest of noisy means is too high. Here half of the final seeds choose the best, and the other half say
    how good it is: the average over all divisions into halves.
    """
    scores = np.array([[found[seed] for seed in FINAL_SEEDS] for found in contenders])
    seeds = range(len(FINAL_SEEDS))
    found = []
    for half in combinations(seeds, len(seeds) // 2):
        best = int((sign * scores[:, half].mean(1)).argmax())
        found.append(float(np.delete(scores[best], half).mean()))
    return fmean(found)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The score of a chosen network, and by how many deviations of one training the best is better.

    The score is the mean of so many ``trainings`` that nobody chose by; if there are none, both come from the fit.
    """

    score: float
    regret: float
    trainings: int


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
        self._scores = levelled(rows, key)
        self._finalists = finalists(truth, space, tables, rows)

    def judge(self, answer: Answer) -> Verdict:
        """What an answer is worth beside the best within its limit."""
        scores = self._scores.get(answer.architecture, {})
        best = self._best(answer)
        trainings = 0
        if best is not None and scores:
            score, trainings = fmean(scores.values()), len(scores)
        else:
            allowed = self._costs_ms[answer.device] <= answer.limit_ms
            best = float(self._sign * (self._sign * self._fitted[allowed]).max())
            score = float(self._fitted[self._space.choices(Architecture.parse(answer.architecture))])
        return Verdict(score, self._sign * (best - score) / self.noise.deviation, trainings)

    def _best(self, answer: Answer) -> float | None:
        """Of all devices' finalists within the limit; None until those of its own device are trained."""
        costs_ms = self._costs_ms[answer.device]
        within = {
            device: [
                self._scores.get(str(self._space.architecture(choices)), {})
                for choices in found
                if costs_ms[choices] <= answer.limit_ms
            ]
            for device, found in self._finalists.items()
        }
        own = within[answer.device]
        if not own or any(len(scores) < len(FINAL_SEEDS) for scores in own):
            return None
        trained = (scores for found in within.values() for scores in found)
        return best_score([scores for scores in trained if len(scores) == len(FINAL_SEEDS)], self._sign)


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
