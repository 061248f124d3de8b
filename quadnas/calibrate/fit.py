"""The only fitter: measured whole networks -> the arrays and the card of a device.

Only totals are measured, so what one kernel costs follows from the mix of kernels: the additive form with
non-negative coefficients is solved by non-negative least squares on relative errors, reweighted so that
disturbed measurements do not bend it. The held-out fifth is never fitted.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.sparse import csr_array

from quadnas.calibrate.evaluate import error_figures, predict_ms, within
from quadnas.calibrate.layernorm import layernorm_rule
from quadnas.calibrate.measured import MeasuredNetwork, read_measured
from quadnas.config import read_settings, validated
from quadnas.errors import ConfigError
from quadnas.latency.backends.additive import Additive, check_terms, floor_ms, sampled_ranges, term_values
from quadnas.latency.card import (
    DeviceCard,
    DeviceFacts,
    HeldOut,
    LeftOut,
    Sampled,
    read_card,
    write_card,
)
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import Arrays, estimate
from quadnas.latency.names import parts
from quadnas.latency.terms import Shapes
from quadnas.resources import locate
from quadnas.run.atomic import commit_bytes

ARRAY_FILE = "coefficients.safetensors"
CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 0.995)
HUBER_WIDTH = 0.10
ROUNDS = 8
SIGNIFICANT_DIGITS = 6
SHARES_OF = 200  # networks of a family whose coverage is averaged; it hardly varies within one

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Design:
    """The linear system of measured networks: measured = floor + terms @ coefficients.

    ``columns`` are (operator, position of the term); ``terms`` (networks, columns), ``floor_ms`` and
    ``measured_ms`` (networks,).
    """

    columns: list[tuple[str, int]]
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
        return cls(columns, np.concatenate(blocks, axis=1), counts @ floors, measured_ms)

    def solve(self, among: NDArray[np.bool_]) -> dict[str, Values]:
        """Coefficients (ms per unit) per operator, fitted to the networks ``among``."""
        measured_ms = self.measured_ms[among]
        terms = self.terms[among] / measured_ms[:, None]
        target = 1 - self.floor_ms[among] / measured_ms
        scale = np.linalg.norm(terms, axis=0)
        scale[scale == 0] = np.inf
        terms = terms / scale
        weights = np.ones(len(target))
        solution = np.zeros(terms.shape[1])
        for _ in range(ROUNDS):
            solution = _nnls(terms * weights[:, None], target * weights)
            residual = np.abs(terms @ solution - target)
            weights = np.sqrt(HUBER_WIDTH / np.maximum(residual, HUBER_WIDTH))
        coefficients = _rounded(solution / scale)
        return {
            op: coefficients[[i for i, (owner, _) in enumerate(self.columns) if owner == op]]
            for op in sorted({op for op, _ in self.columns})
        }

    def predict_ms(self, arrays: Arrays) -> Values:
        """Latency of every network under some coefficients: (networks,)."""
        coefficients = np.array([arrays[op][j] for op, j in self.columns])
        return np.asarray(self.floor_ms + self.terms @ coefficients)


def fit_device(name: str, data: Sequence[Path], out: Path, ffn_blocks: Path | None = None) -> DeviceCard:
    """Fit the device ``name`` to measured networks and write its card and arrays into the folder ``out``.

    ``name`` is a known device, whose facts are kept, or the path of a YAML file with the facts of a new
    one (``DeviceFacts``). ``ffn_blocks`` is a table of measured blocks that sets the stand-in for LayerNorm.
    The result depends on nothing but the arguments. Raises ConfigError, DataError.
    """
    facts = _facts(name)
    check_terms(facts)
    networks = [
        network
        for path in data
        for network in read_measured(path, facts.measured_column, facts.measured_batch)
    ]
    held_out = np.array([network.held_out for network in networks])
    if held_out.all() or not held_out.any():
        raise ConfigError(f"{len(networks)} networks are too few to fit and to check; give hundreds")
    design = Design.of(facts, networks)
    arrays = design.solve(~held_out)
    file = safetensors.numpy.save(arrays)
    checked = design.predict_ms(arrays)[held_out], design.measured_ms[held_out]
    card = DeviceCard(
        **dict(facts),
        held_out=_held_out(*checked),
        families_left_out=(),
        error_quantiles=_error_quantiles(*checked),
        sampled=_sampled(facts, networks, ~held_out),
        arrays={ARRAY_FILE: hashlib.sha256(file).hexdigest()},
    )
    left_out = tuple(_left_out(card, design, networks, ~held_out, family) for family in _families(networks))
    card = card.model_copy(update={"families_left_out": left_out})
    if ffn_blocks is not None:
        rule = layernorm_rule(Additive(card, arrays, card.measured_batch), ffn_blocks)
        card = card.model_copy(update={"surrogates": {**card.surrogates, "layernorm": rule}})
    out.mkdir(parents=True, exist_ok=True)
    commit_bytes(out / ARRAY_FILE, file)
    commit_bytes(out / "card.yaml", write_card(card))
    return card


def _facts(name: str) -> DeviceFacts:
    path = locate("latency_predictors", name)
    if path.is_file():
        return read_settings(path, DeviceFacts)
    card = read_card(path / "card.yaml")
    return DeviceFacts(**{field: getattr(card, field) for field in DeviceFacts.model_fields})


def _families(networks: Sequence[MeasuredNetwork]) -> list[str]:
    families = sorted({network.family for network in networks})
    return families if len(families) > 1 else []


def _held_out(predicted_ms: Values, measured_ms: Values) -> HeldOut:
    figures = error_figures(predicted_ms, measured_ms)
    rounded = {key: _figure(value) for key, value in figures.items() if value is not None}
    return validated(
        {"models": len(measured_ms), "uncovered_models": 0, **rounded}, HeldOut, "held-out figures"
    )


def _error_quantiles(predicted_ms: Values, measured_ms: Values) -> tuple[tuple[float, float], ...]:
    ratios = np.quantile(measured_ms / predicted_ms, CONFIDENCES, method="higher")
    return tuple(zip(CONFIDENCES, map(_figure, ratios), strict=True))


def _sampled(
    facts: DeviceFacts, networks: Sequence[MeasuredNetwork], among: NDArray[np.bool_]
) -> dict[str, tuple[Sampled, ...]]:
    kernels = {kernel for index in np.flatnonzero(among).tolist() for kernel in networks[index].kernels}
    return sampled_ranges(
        [part for kernel in kernels for part in parts(kernel, facts.folded) if part.op in facts.terms]
    )


def _left_out(
    card: DeviceCard,
    design: Design,
    networks: Sequence[MeasuredNetwork],
    among: NDArray[np.bool_],
    family: str,
) -> LeftOut:
    """Fit without a family and predict it, with the ranges and operators that the others measured."""
    theirs = np.array([network.family == family for network in networks])
    others = among & ~theirs
    sampled = _sampled(card, networks, others)
    arrays = {op: values for op, values in design.solve(others).items() if op in sampled}
    model = Additive(card.model_copy(update={"sampled": sampled}), arrays, card.measured_batch)
    members = [networks[index] for index in np.flatnonzero(theirs).tolist()]
    predicted_ms, measured_ms = predict_ms(model, members), design.measured_ms[theirs]
    return LeftOut(
        family=family,
        models=len(members),
        within_5=_figure(within(predicted_ms, measured_ms, 0.05)),
        within_10=_figure(within(predicted_ms, measured_ms, 0.10)),
        bias=_figure(np.nanmedian(predicted_ms / measured_ms) - 1),
        exact=_figure(fmean(estimate(model, net.kernels).shares["exact"] for net in members[:SHARES_OF])),
    )


def _nnls(terms: Values, target: Values) -> Values:
    """Non-negative least squares through the Cholesky factor: the same solution, a hundredfold smaller."""
    gram = terms.T @ terms
    gram[np.diag_indices_from(gram)] += 1e-9 * max(1.0, float(gram.max()))
    factor = np.linalg.cholesky(gram)
    solution, _ = nnls(factor.T, np.linalg.solve(factor, terms.T @ target), maxiter=50 * len(gram))
    return np.asarray(solution)


def _rounded(values: Values) -> Values:
    """Digits that do not depend on the order in which a processor adds."""
    return np.array([float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in values])


def _figure(value: float) -> float:
    return round(float(value), 4)


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
