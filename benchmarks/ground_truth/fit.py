"""A smooth truth through noisy trainings: ridge regression on slots and pairs of slots, cross-validated.

The score of an architecture is modelled as a constant, plus a function of every slot's candidate, plus a function
of the candidates of every two slots. Similar candidates share strength: the kernel of a slot is ``similarity``.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, zip_longest

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from benchmarks.ground_truth.plan import FINAL_SEEDS, Choices, Truth, limit_points, network_of
from benchmarks.ground_truth.table import Row
from quadnas.latency.table import CostTable
from quadnas.space.architecture import Architecture
from quadnas.space.search_space import SearchSpace, Slot

Floats = NDArray[np.float64]
PAIR_SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)
RIDGES = tuple(float(10.0**e) for e in np.arange(-3, 1.6, 0.5))
FOLDS = 10


@dataclass(frozen=True)
class Labels:
    """Architectures ``choices`` (n, slots), their mean score (n,), and of how many trainings it is (n,)."""

    choices: NDArray[np.int64]
    scores: Floats
    counts: Floats

    def part(self, chosen: NDArray[np.int64]) -> "Labels":
        """Some of them."""
        return Labels(self.choices[chosen], self.scores[chosen], self.counts[chosen])


def labels_of(space: SearchSpace, rows: Iterable[Row], key: str) -> Labels:
    """The mean of ``key`` (accuracy or loss) over the seeds of every architecture, in order of appearance."""
    groups = grouped(rows, key)
    choices = [space.choices(Architecture.parse(name)) for name in groups]
    return Labels(
        np.array(choices, dtype=np.int64),
        np.array([np.mean(values) for values in groups.values()]),
        np.array([float(len(values)) for values in groups.values()]),
    )


def grouped(rows: Iterable[Row], key: str) -> dict[str, list[float]]:
    """The values of ``key`` by architecture, ordered by seed."""
    groups: dict[str, list[float]] = {}
    for row in sorted(rows, key=lambda row: row.seed):
        groups.setdefault(row.architecture, []).append(float(getattr(row, key)))
    return groups


def similarity(slot: Slot) -> Floats:
    """(candidates, candidates): 0 between families; within one the mean agreement of family, arguments, and all.

    Two values of an argument agree by 1 less their distance in rank, as a share of the largest one.
    """
    layers = list(slot.candidates.values())
    levels: dict[tuple[str, str], list[float]] = {}
    for layer in layers:
        for name, value in layer.arguments.items():
            known = levels.setdefault((layer.block, name), [])
            known[:] = sorted({*known, float(value)})

    def agreement(a: int, b: int) -> float:
        one, other = layers[a], layers[b]
        if one.block != other.block:
            return 0.0
        shares = [1.0, float(a == b)]
        for name, value in one.arguments.items():
            known = levels[one.block, name]
            distance = abs(known.index(float(value)) - known.index(float(other.arguments[name])))
            shares.append(1 - distance / max(1, len(known) - 1))
        return float(np.mean(shares))

    count = range(len(layers))
    return np.array([[agreement(a, b) for b in count] for a in count])


@dataclass(frozen=True)
class Fitted:
    """A fitted score: ``constant`` + ``mains[s][i]`` + ``pairs[s, t][i, j]``, slots s < t with candidates i, j."""

    constant: float
    mains: tuple[Floats, ...]
    pairs: Mapping[tuple[int, int], Floats]

    def of(self, choices: NDArray[np.int64]) -> Floats:
        """Scores (n,) of architectures (n, slots)."""
        found = np.full(len(choices), self.constant)
        for s, main in enumerate(self.mains):
            found += main[choices[:, s]]
        for (s, t), pair in self.pairs.items():
            found += pair[choices[:, s], choices[:, t]]
        return found

    def effects(self) -> list[Floats]:
        """Per slot, the mean score over all architectures with each candidate, less the mean of the space."""
        found = [main - main.mean() for main in self.mains]
        for (s, t), pair in self.pairs.items():
            found[s] = found[s] + pair.mean(1) - pair.mean()
            found[t] = found[t] + pair.mean(0) - pair.mean()
        return found


@dataclass(frozen=True)
class Fit:
    """A fit and how it was chosen: ``pair_share``, the weight of pairs, and ``ridge``, by cross-validation.

    ``held_out`` are predictions (n,) of every label by a fit, settings included, that never saw its fold.
    """

    model: Fitted
    pair_share: float
    ridge: float
    held_out: Floats


def fit(space: SearchSpace, labels: Labels, seed: int = 0) -> Fit:
    """Choose the settings by cross-validation, fit, and predict every label by fits without its fold."""
    kernels = [similarity(slot) for slot in space.slots]
    held_out = np.zeros(len(labels.scores))
    for inside, outside in _folds(len(labels.scores), seed):
        training = labels.part(inside)
        model = fit_with(kernels, training, *_chosen(kernels, training))
        held_out[outside] = model.of(labels.choices[outside])
    pair_share, ridge = _chosen(kernels, labels)
    return Fit(fit_with(kernels, labels, pair_share, ridge), pair_share, ridge, held_out)


def fit_with(kernels: Sequence[Floats], labels: Labels, pair_share: float, ridge: float) -> Fitted:
    """Kernel ridge regression with given settings; a mean of n trainings is worth n of them."""
    constant = float(np.average(labels.scores, weights=labels.counts))
    slots = _slot_kernels(kernels, labels.choices, labels.choices)
    gram = _joined(slots, pair_share) + np.diag(ridge / labels.counts)
    dual = cho_solve(cho_factor(gram), labels.scores - constant)
    chosen = [kernel[:, labels.choices[:, s]] for s, kernel in enumerate(kernels)]
    count = len(kernels)
    scale = pair_share / max(1, count * (count - 1) / 2)
    return Fitted(
        constant,
        tuple(columns @ dual / count for columns in chosen),
        {
            (s, t): scale * (chosen[s] * dual) @ chosen[t].T
            for s, t in combinations(range(count), 2)
            if pair_share
        },
    )


def _slot_kernels(kernels: Sequence[Floats], a: NDArray[np.int64], b: NDArray[np.int64]) -> Floats:
    """(slots, len(a), len(b))."""
    return np.stack([kernel[np.ix_(a[:, s], b[:, s])] for s, kernel in enumerate(kernels)])


def _joined(slots: Floats, pair_share: float) -> Floats:
    """The mean over slots, and that over pairs of slots times its share."""
    count = len(slots)
    total = slots.sum(0)
    pairs = (total**2 - (slots**2).sum(0)) / max(1, count * (count - 1))
    joined: Floats = total / count + pair_share * pairs
    return joined


def _chosen(kernels: Sequence[Floats], labels: Labels) -> tuple[float, float]:
    """The pair share and the ridge with the least squared error when each label is left out in turn.

    In closed form: the residual without label i is (G^-1 y)_i / (G^-1)_ii, from one decomposition per share.
    """
    slots = _slot_kernels(kernels, labels.choices, labels.choices)
    roots = np.sqrt(labels.counts)
    centred = labels.scores - np.average(labels.scores, weights=labels.counts)
    errors = {}
    for share in PAIR_SHARES:
        values, vectors = np.linalg.eigh(_joined(slots, share) * np.outer(roots, roots))
        turned = vectors.T @ (roots * centred)
        for ridge in RIDGES:
            inverse = 1 / (np.maximum(values, 0) + ridge)
            residuals = (vectors @ (inverse * turned)) / (vectors**2 @ inverse)
            errors[share, ridge] = float((residuals**2).sum())
    return min(errors, key=errors.__getitem__)


def _folds(count: int, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(inside, outside) of every fold."""
    order = np.random.default_rng(seed).permutation(count)
    for number in range(min(FOLDS, count)):
        yield np.delete(order, np.s_[number::FOLDS]), order[number::FOLDS]


def whole_space(model: Fitted) -> Floats:
    """The fitted score of every architecture: an array with one axis per slot."""
    sizes = [len(main) for main in model.mains]
    found = np.full(sizes, model.constant)
    for s, main in enumerate(model.mains):
        found += _on_axes(main, len(sizes), s)
    for (s, t), pair in model.pairs.items():
        found += _on_axes(pair, len(sizes), s, t)
    return found


def latencies(table: CostTable) -> Floats:
    """The latency in ms of every architecture: an array with one axis per slot."""
    found = np.full([len(row) for row in table.rows], table.fixed)
    for s, row in enumerate(table.rows):
        found += _on_axes(np.array(row), len(table.rows), s)
    return found


def _on_axes(values: Floats, axes: int, *at: int) -> Floats:
    """``values`` with its axes at places ``at`` of so many."""
    return values.reshape([values.shape[at.index(axis)] if axis in at else 1 for axis in range(axes)])


def limit_within(table: CostTable, share: float) -> float:
    """The limit in ms at a share of the way from a device's fastest to its slowest network."""
    low, high = table.range
    return low + share * (high - low)


def best_within(scores: Floats, cost_ms: Floats, limit_ms: float, count: int) -> list[Choices]:
    """The architectures with the highest of ``scores`` (an axis per slot) within the limit, best first."""
    allowed = np.where(cost_ms <= limit_ms, scores, -np.inf).ravel()
    count = min(count, int(np.isfinite(allowed).sum()))
    places = np.argpartition(-allowed, max(0, count - 1))[:count]
    places = places[np.argsort(-allowed[places], kind="stable")]
    return [tuple(int(i) for i in np.unravel_index(place, scores.shape)) for place in places]


def finalists(
    truth: Truth, space: SearchSpace, tables: Mapping[str, CostTable], rows: Iterable[Row]
) -> list[Choices]:
    """The best architectures by the fitted cross-entropy under each of ``limit_points``, each network once.

    In order of rank: those that lead under any limit come first. The finalists' own trainings do not count.
    """
    kernels = [similarity(slot) for slot in space.slots]
    labels = labels_of(space, (row for row in rows if row.seed not in FINAL_SEEDS), "loss")
    scores = -whole_space(fit_with(kernels, labels, *_chosen(kernels, labels)))
    lists = [
        best_within(scores, latencies(tables[device]), limit_within(tables[device], share), truth.finalists)
        for device, share in limit_points(truth)
    ]
    ranked = (choices for rank in zip_longest(*lists) for choices in rank if choices is not None)
    found: dict[str, Choices] = {}
    for choices in ranked:
        found.setdefault(network_of(space, choices), choices)
    return list(found.values())
