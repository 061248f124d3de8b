"""Which terms a device's operators depend on, chosen on the training networks alone.

From all candidates, and again from the first of every operator, the term goes or comes that helps most, until
each that is in earns its place and none that is out would; the better of the two ends counts. Its measure is
the error on networks like none that were fitted: on every family by a fit to the other families, and on every
fold by a fit to the other folds, in equal parts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from quadnas.calibrate.design import HUBER_WIDTH, Design, solve_gram
from quadnas.calibrate.measured import MeasuredNetwork
from quadnas.latency.card import DeviceFacts

WORTH = 2e-3  # a term stays if the error is at least by this share larger without it
TIE = 1e-9  # errors this close are equal: which of two terms explains the same is not for rounding to say
FEWEST_FAMILIES = 3  # with fewer, a fit to the others says nothing of the one left out

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


def select_terms(facts: DeviceFacts, networks: Sequence[MeasuredNetwork]) -> dict[str, tuple[str, ...]]:
    """Terms for the operators of ``facts.candidates`` (or, if it is empty, ``facts.terms``), chosen out of these.

    Held-out networks are not looked at. The first candidate of an operator, its own work, always stays; an
    operator that no network has keeps all. The result depends on nothing but the arguments. Raises ConfigError
    as ``Design.of``.
    """
    training = [network for network in networks if not network.held_out]
    candidates = facts.candidates or facts.terms
    design = Design.of(facts.model_copy(update={"terms": candidates}), training)
    splits = _splits(design, training)
    first = np.array([j == 0 for _, j in design.columns])
    ends = [_descend(splits, ~first, start) for start in (first | ~first, first)]
    _, kept = ends[_least(ends)]
    chosen = [column for column, keep in zip(design.columns, kept, strict=True) if keep]
    return {
        op: tuple(candidates[op][j] for owner, j in chosen if owner == op) or candidates[op]
        for op in candidates
    }


@dataclass(frozen=True, slots=True)
class _Split:
    """Normal equations (gram, cross) of the networks outside a part, and, per network, of those inside it.

    ``square`` is the mean square of the inside's targets; ``private`` marks columns that only the inside has,
    ``lean`` are the equations between an operator and its stand-in.
    """

    outside: tuple[Values, Values]
    inside: tuple[Values, Values]
    square: float
    private: Mask
    lean: Values

    def error(self, kept: Mask) -> float:
        """Root mean square of the inside's residuals; what only the inside has is fitted to the inside."""
        coefficients = np.zeros(len(kept))
        lean = self.lean[~self.lean[:, ~kept].any(axis=1)]
        outside = self.outside[0] + lean.T @ lean, self.outside[1]
        for columns, (gram, cross) in (
            (kept & ~self.private, outside),
            (kept & self.private, self.inside),
        ):
            left = cross[columns] - gram[columns] @ coefficients
            coefficients[columns] = solve_gram(gram[np.ix_(columns, columns)], left)
        gram, cross = self.inside
        return float(np.sqrt(self.square + coefficients @ (gram @ coefficients - 2 * cross)))


def _splits(design: Design, networks: Sequence[MeasuredNetwork]) -> list[list[_Split]]:
    """By fold and, where there are enough of them, by family."""
    everyone = np.ones(len(networks), dtype=bool)
    residual = design.predict_ms(design.solve(everyone)) / design.measured_ms - 1
    terms, target, scale = design.relative(everyone)
    others = [other for _, other, _ in design.stand_ins]
    weights = np.sqrt(HUBER_WIDTH / np.maximum(np.abs(residual), HUBER_WIDTH))
    terms, target = terms * weights[:, None], target * weights
    labels = [[str(network.fold) for network in networks], [network.family for network in networks]]
    return [
        list(_by(np.array(of), terms, target, (design.leaning(scale), others)))
        for of in labels
        if of is labels[0] or len(set(of)) >= FEWEST_FAMILIES
    ]


def _by(
    labels: NDArray[np.str_], terms: Values, target: Values, lean: tuple[Values, list[int]]
) -> Iterator[_Split]:
    whole_gram, whole_cross = terms.T @ terms, terms.T @ target
    for label in np.unique(labels):
        inside = labels == label
        rows, values = terms[inside], target[inside]
        gram, cross = rows.T @ rows, rows.T @ values
        outside = whole_gram - gram
        share = np.sqrt(np.maximum(np.diag(outside), 0))[
            lean[1]
        ]  # of the stand-in outside, as ``solve`` has it
        yield _Split(
            outside=(outside, whole_cross - cross),
            inside=(gram / len(rows), cross / len(rows)),
            square=float(values @ values) / len(rows),
            private=~(terms[~inside] != 0).any(axis=0),
            lean=lean[0] * share[:, None],
        )


def _loss(splits: Sequence[Sequence[_Split]], kept: Mask) -> float:
    return fmean(fmean(split.error(kept) for split in of) for of in splits) * (1 + WORTH) ** int(kept.sum())


def _descend(splits: Sequence[Sequence[_Split]], free: Mask, kept: Mask) -> tuple[float, Mask]:
    """The least loss that is reached by changing one term at a time, and its terms."""
    loss = _loss(splits, kept)
    while neighbours := [(_loss(splits, trial), trial) for trial in _neighbours(free, kept)]:
        nearest = neighbours[_least(neighbours)]
        if nearest[0] >= loss * (1 - TIE):
            break
        loss, kept = nearest
    return loss, kept


def _least(found: Sequence[tuple[float, Mask]]) -> int:
    """The place of the least loss: of equal ones, that of the terms that stand last."""
    least = min(loss for loss, _ in found)
    equal = [place for place, (loss, _) in enumerate(found) if loss <= least * (1 + TIE)]
    return max(equal, key=lambda place: found[place][1][::-1].tolist())


def _neighbours(free: Mask, kept: Mask) -> list[Mask]:
    """One free term more or less."""
    return [kept ^ (np.arange(len(kept)) == column) for column in np.flatnonzero(free)]
