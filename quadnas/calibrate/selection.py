"""Which terms a device's operators depend on, chosen on the training networks alone.

Backward elimination from all candidates: the term whose loss hurts least goes, until each that is left earns
its place. What counts is the error on networks like none that were fitted: on every family by a fit to the
other families, and on every fold by a fit to the other folds, in equal parts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from quadnas.calibrate.design import HUBER_WIDTH, Design, solve_gram
from quadnas.calibrate.measured import MeasuredNetwork
from quadnas.latency.card import DeviceFacts
from quadnas.latency.terms import TERMS

WORTH = 2e-3  # a term stays if the error is at least this share larger without it
FEWEST_FAMILIES = 3  # with fewer, a fit to the others says nothing of the one left out

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


def select_terms(facts: DeviceFacts, networks: Sequence[MeasuredNetwork]) -> dict[str, tuple[str, ...]]:
    """Terms for the operators that ``facts.terms`` names: out of the general ones and those that it names.

    Held-out networks are not looked at. An operator keeps at least one term; one that no network has keeps
    those of the facts. The result depends on nothing but the arguments. Raises ConfigError as ``Design.of``.
    """
    training = [network for network in networks if not network.held_out]
    candidates = {op: tuple(dict.fromkeys((*TERMS[op], *named))) for op, named in facts.terms.items()}
    design = Design.of(facts.model_copy(update={"terms": candidates}), training)
    splits = _splits(design, training)
    ops = np.array([op for op, _ in design.columns])
    kept = np.ones(len(ops), dtype=bool)
    least = _error(splits, kept)
    while True:
        trials = {j: _error(splits, _without(kept, j)) for j in _droppable(ops, kept)}
        idlest = min(trials, key=lambda j: (trials[j], -j), default=None)
        if idlest is None or trials[idlest] > least * (1 + WORTH):
            break
        kept, least = _without(kept, idlest), min(least, trials[idlest])
    chosen = [column for column, keep in zip(design.columns, kept, strict=True) if keep]
    return {
        op: tuple(candidates[op][j] for owner, j in chosen if owner == op) or facts.terms[op]
        for op in facts.terms
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
    weights = np.sqrt(HUBER_WIDTH / np.maximum(np.abs(residual), HUBER_WIDTH))
    terms, target = terms * weights[:, None], target * weights
    labels = [[str(network.fold) for network in networks], [network.family for network in networks]]
    return [
        list(_by(np.array(of), terms, target, design.leaning(scale)))
        for of in labels
        if of is labels[0] or len(set(of)) >= FEWEST_FAMILIES
    ]


def _by(labels: NDArray[np.str_], terms: Values, target: Values, lean: Values) -> Iterator[_Split]:
    whole_gram, whole_cross = terms.T @ terms, terms.T @ target
    for label in np.unique(labels):
        inside = labels == label
        rows, values = terms[inside], target[inside]
        gram, cross = rows.T @ rows, rows.T @ values
        yield _Split(
            outside=(whole_gram - gram, whole_cross - cross),
            inside=(gram / len(rows), cross / len(rows)),
            square=float(values @ values) / len(rows),
            private=~(terms[~inside] != 0).any(axis=0),
            lean=lean,
        )


def _error(splits: Sequence[Sequence[_Split]], kept: Mask) -> float:
    return fmean(fmean(split.error(kept) for split in of) for of in splits)


def _without(kept: Mask, column: int) -> Mask:
    left = kept.copy()
    left[column] = False
    return left


def _droppable(ops: NDArray[np.str_], kept: Mask) -> list[int]:
    """Columns that are not the last of their operator."""
    return [j for j in np.flatnonzero(kept).tolist() if (ops[kept] == ops[j]).sum() > 1]
