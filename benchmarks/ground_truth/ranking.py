"""How well supernets rank the networks of a truth: all, those of equal cost, and the best within limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from benchmarks.ground_truth.analysis import SIMULATIONS, likely_truth
from benchmarks.ground_truth.answers import SearchRow
from benchmarks.ground_truth.fit import Floats
from benchmarks.ground_truth.plan import Choices
from benchmarks.ground_truth.regret import Judge
from benchmarks.ground_truth.table import Row
from quadnas.compare.statistics import kendall, same_band
from quadnas.space.search_space import SearchSpace

EVERYWHERE = "all"
"""Where networks of every cost are compared; the other places are the bands of equal latency on each device."""
WEIGHTS, OWN, SIZE = "inherited weights", "own scores", "multiply-accumulates"
EFFECTS, HELD_OUT = "main effects", "other networks' trainings"
"""What networks are ranked by; a strategy with scores of its own chooses by these."""

BEST = 5
"""Of a ranking, that are looked at within a limit."""
EXCESS = f"the {BEST} best, 1/1000 nats"
"""Not a place: how much worse the best by the prediction are than those that are best."""

Taus = dict[str, float]
"""Kendall's tau by place, and the ``EXCESS``."""


@dataclass(frozen=True)
class RankedTruth:
    """The planned networks that were trained with seed 0: ``numbers`` in the plan, their score, higher is better.

    ``among``: by place, which pairs of them are compared; ``within``: by limit, which are within it.
    """

    numbers: NDArray[np.int64]
    choices: NDArray[np.int64]
    scores: Floats
    macs: Floats
    among: Mapping[str, NDArray[np.bool_]]
    within: Sequence[NDArray[np.bool_]]

    def taus(self, predicted: Floats) -> Taus:
        """Of a prediction (n,), higher is better."""
        generator = np.random.default_rng(0)
        values = predicted.tolist(), self.scores.tolist()
        found = {
            place: kendall(*values, generator, among=pairs, resamples=1).value
            for place, pairs in self.among.items()
        }
        return {**found, EXCESS: 1e3 * self.excess(predicted)}

    def excess(self, predicted: Floats) -> float:
        """By how much the ``BEST`` by a prediction (n,) are worse than those by score, mean over the limits.

        Of networks that were trained anyway: no fit stands between a choice and what it is worth.
        """

        def best(by: Floats, allowed: NDArray[np.bool_]) -> float:
            order = np.argsort(-by[allowed], kind="stable")
            return float(self.scores[allowed][order[:BEST]].mean())

        return float(np.mean([best(self.scores, some) - best(predicted, some) for some in self.within]))


def ranked_truth(
    space: SearchSpace,
    planned: Sequence[Choices],
    rows: Sequence[Row],
    limits_ms: Sequence[tuple[str, float]],
) -> RankedTruth:
    """The cross-entropies of seed 0, all with the same first batches: what the ceiling is computed for.

    ``limits_ms``: devices and what is allowed on them.
    """
    by_name = {row.architecture: row for row in rows if row.seed == 0}
    names = [str(space.architecture(choices)) for choices in planned]
    numbers = np.array([number for number, name in enumerate(names) if name in by_name])
    found = [by_name[names[number]] for number in numbers]
    among = {EVERYWHERE: np.ones((len(found), len(found)), dtype=bool)}
    latency_ms = {device: np.array([row.latency_ms[device] for row in found]) for device in dict(limits_ms)}
    among |= {device: same_band(costs_ms.tolist()) for device, costs_ms in latency_ms.items()}
    return RankedTruth(
        numbers,
        np.array([planned[number] for number in numbers]),
        -np.array([row.loss for row in found]),
        np.array([float(row.macs) for row in found]),
        among,
        [latency_ms[device] <= limit_ms for device, limit_ms in limits_ms],
    )


def search_taus(truth: RankedTruth, search: SearchRow) -> dict[str, Taus]:
    """By what ranks: held-out losses with inherited weights, and the strategy's own scores added up."""
    found = {}
    if search.losses:
        found[WEIGHTS] = truth.taus(-np.array(search.losses)[truth.numbers])
    if search.losses and search.scores:
        found[OWN] = truth.taus(additive(search.scores, truth.choices))
    return found


def additive(scores: Sequence[Sequence[float] | Floats], choices: NDArray[np.int64]) -> Floats:
    """The sums (n,) of the scores of the candidates in ``choices`` (n, slots)."""
    found: Floats = np.sum([np.array(row)[choices[:, s]] for s, row in enumerate(scores)], axis=0)
    return found


def all_taus(
    truth: RankedTruth, judge: Judge, searches: Sequence[SearchRow]
) -> dict[tuple[str, str], dict[int, Taus]]:
    """By strategy and what ranks, seed by seed; and what size and the fit of a ``judge`` of loss would rank.

    The main effects of the fit are judged by the trainings that they come from: hardly any sum over slots ranks
    these better. Held out, it is a predictor of accuracy that has learnt from nine tenths of the trainings.
    """
    held_out = dict(zip(map(tuple, judge.labels.choices.tolist()), judge.fit.held_out, strict=True))
    found: dict[tuple[str, str], dict[int, Taus]] = {
        ("(fit)", EFFECTS): {0: truth.taus(-additive(judge.fit.model.effects(), truth.choices))},
        ("(fit)", HELD_OUT): {0: truth.taus(-np.array([held_out[tuple(c)] for c in truth.choices.tolist()]))},
        ("largest", SIZE): {0: truth.taus(truth.macs)},
    }
    for search in searches:
        for by, taus in search_taus(truth, search).items():
            found.setdefault((search.strategy, by), {})[search.seed] = taus
    return found


def ceilings(truth: RankedTruth, judge: Judge) -> Taus:
    """What a perfect predictor of the mean would reach, by simulation of the trainings; ``judge``: of loss."""
    likely = dict(
        zip(
            map(tuple, judge.labels.choices.tolist()),
            likely_truth(judge.fit, judge.labels, judge.noise),
            strict=True,
        )
    )
    means = -np.array([likely[tuple(choices)] for choices in truth.choices.tolist()])
    generator = np.random.default_rng(0)
    found = [
        replace(truth, scores=means + generator.normal(0, judge.noise.deviation, len(means))).taus(means)
        for _ in range(SIMULATIONS)
    ]
    return {place: fmean(one[place] for one in found) for place in found[0]}
