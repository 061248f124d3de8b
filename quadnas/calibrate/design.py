"""The linear system that measured whole networks are, and its robust non-negative solution.

Only totals are measured, so what one kernel costs follows from the mix of kernels: the additive form with
non-negative coefficients is solved by non-negative least squares on relative errors, reweighted so that
disturbed measurements do not bend it. An operator of which the networks say little leans on its stand-in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.sparse import csr_array

from quadnas.calibrate.measured import MeasuredNetwork
from quadnas.errors import ConfigError
from quadnas.latency.backends.additive import floor_ms, term_values
from quadnas.latency.card import DeviceFacts
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import Arrays
from quadnas.latency.names import parts
from quadnas.latency.terms.general import Shapes

HUBER_WIDTH = 0.10
ROUNDS = 8
SIGNIFICANT_DIGITS = 6
LEAN = 0.1  # weight of a lean, beside networks with as much time in the stand-in

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Design:
    """The linear system of measured networks: measured = floor + terms @ coefficients.

    ``columns`` are (operator, position of the term); ``terms`` (networks, columns), ``floor_ms`` and
    ``measured_ms`` (networks,). ``stand_ins`` are (column, the same term of the operator's stand-in, factor).
    """

    columns: list[tuple[str, int]]
    stand_ins: list[tuple[int, int, float]]
    terms: Values
    floor_ms: Values
    measured_ms: Values

    @classmethod
    def of(cls, facts: DeviceFacts, networks: Sequence[MeasuredNetwork]) -> "Design":
        """Sum floors and terms over the kernels of every network."""
        index: dict[Kernel, int] = {}
        owners, members = [], []
        for owner, network in enumerate(networks):
            for kernel in network.kernels:
                owners.append(owner)
                members.append(index.setdefault(kernel, len(index)))
        counts = csr_array((np.ones(len(owners)), (owners, members)), (len(networks), len(index)))
        by_op: dict[str, list[tuple[int, Kernel, float]]] = {}
        for kernel, position in index.items():
            for part in parts(kernel, facts.folded):
                reference, factor = _reference(facts, part)
                by_op.setdefault(reference.op, []).append((position, reference, factor))
        columns, blocks = [], []
        floors = np.zeros(len(index))
        for op, rows in sorted(by_op.items()):
            positions, kernels, factors = zip(*rows, strict=True)
            shapes = Shapes.of(kernels)
            np.add.at(floors, list(positions), np.array(factors) * floor_ms(facts, op, shapes))
            terms = term_values(facts, op, shapes)
            per_kernel = np.zeros((len(index), terms.shape[1]))
            np.add.at(per_kernel, list(positions), np.array(factors)[:, None] * terms)
            blocks.append(counts @ per_kernel)
            columns += [(op, j) for j in range(terms.shape[1])]
        measured_ms = np.array([network.latency_ms for network in networks])
        return cls(
            columns, _stand_ins(facts, columns), np.concatenate(blocks, axis=1), counts @ floors, measured_ms
        )

    def solve(self, among: NDArray[np.bool_], importance: Values | None = None) -> dict[str, Values]:
        """Coefficients (ms per unit) per operator, fitted to the networks ``among``.

        ``importance`` (networks,) weighs their squared errors, 1 each by default.
        """
        terms, target, scale = self.relative(among)
        lean = self.leaning(scale)
        base = np.ones(len(target)) if importance is None else np.sqrt(importance[among])
        weights = base
        solution = np.zeros(terms.shape[1])
        for _ in range(ROUNDS):
            weighted = terms * weights[:, None]
            solution = solve_gram(weighted.T @ weighted + lean.T @ lean, weighted.T @ (target * weights))
            residual = np.abs(terms @ solution - target)
            weights = base * np.sqrt(HUBER_WIDTH / np.maximum(residual, HUBER_WIDTH))
        coefficients = _rounded(solution / scale)
        return {
            op: coefficients[[i for i, (owner, _) in enumerate(self.columns) if owner == op]]
            for op in sorted({op for op, _ in self.columns})
        }

    def relative(self, among: NDArray[np.bool_]) -> tuple[Values, Values, Values]:
        """The system in shares of the measured ms: terms in columns of norm 1 (or 0), target, and the norms."""
        measured_ms = self.measured_ms[among]
        terms = self.terms[among] / measured_ms[:, None]
        scale = np.linalg.norm(terms, axis=0)
        scale[scale == 0] = np.inf
        return terms / scale, 1 - self.floor_ms[among] / measured_ms, scale

    def leaning(self, scale: Values) -> Values:
        """Equations (stand-ins, columns) with target 0: a coefficient is a factor times its stand-in's.

        They are in the columns of ``relative``, whose norms are ``scale``, and in the stand-in's share of time.
        """
        equations = np.zeros((len(self.stand_ins), len(self.columns)))
        for equation, (column, other, factor) in zip(equations, self.stand_ins, strict=True):
            if np.isfinite(scale[[column, other]]).all():
                equation[column], equation[other] = LEAN * scale[other] / scale[column], -LEAN * factor
        return equations

    def predict_ms(self, arrays: Arrays) -> Values:
        """Latency of every network under some coefficients: (networks,)."""
        coefficients = np.array([arrays[op][j] for op, j in self.columns])
        return np.asarray(self.floor_ms + self.terms @ coefficients)


def _stand_ins(facts: DeviceFacts, columns: Sequence[tuple[str, int]]) -> list[tuple[int, int, float]]:
    """Columns whose operator has a stand-in with the same term."""
    named = {(op, facts.terms[op][term]): position for position, (op, term) in enumerate(columns)}
    return [
        (position, named[rule.reference, term], rule.factor)
        for (op, term), position in named.items()
        if (rule := facts.surrogates.get(op)) and (rule.reference, term) in named
    ]


def solve_gram(gram: Values, cross: Values) -> Values:
    """Non-negative least squares of normal equations, through the Cholesky factor: as exact, far smaller."""
    if not len(gram):
        return cross
    steadied = gram + 1e-9 * max(1.0, float(gram.max())) * np.eye(len(gram))
    factor = np.linalg.cholesky(steadied)
    solution, _ = nnls(factor.T, np.linalg.solve(factor, cross), maxiter=50 * len(gram))
    return np.asarray(solution)


def _rounded(values: Values) -> Values:
    """Digits that do not depend on the order in which a processor adds."""
    return np.array([float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in values])


def _reference(facts: DeviceFacts, part: Kernel) -> tuple[Kernel, float]:
    """The operator that gets a coefficient for ``part``: itself, or its stand-in times a factor."""
    if part.op in facts.terms:
        return part, 1.0
    rule = facts.surrogates.get(part.op)
    if rule is None or rule.reference not in facts.terms:
        raise ConfigError(
            f"device {facts.device!r} cannot be fitted to the operator {part.op!r}: give it terms or a "
            f"stand-in in the device's facts; terms are given for {', '.join(sorted(facts.terms))}"
        )
    return replace(part, op=rule.reference), rule.factor
