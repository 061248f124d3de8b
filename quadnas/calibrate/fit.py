"""The only fitter: measured whole networks -> the arrays and the card of a device.

The held-out fifth is never fitted (``quadnas.calibrate.design`` is the fit itself).
"""

import hashlib
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from statistics import fmean

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from quadnas.calibrate.design import Design
from quadnas.calibrate.evaluate import covered, error_figures, estimates, interval_coverage, within
from quadnas.calibrate.intervals import kernel_error, quantiles, unseen_ratios
from quadnas.calibrate.layernorm import layernorm_rule
from quadnas.calibrate.measured import MeasuredNetwork, read_measured
from quadnas.calibrate.selection import select_terms
from quadnas.calibrate.transfer import with_tables
from quadnas.calibrate.winners import importances, winners_in
from quadnas.config import read_settings, validated
from quadnas.errors import ConfigError
from quadnas.latency.backends.additive import Additive, check_terms, sampled_ranges
from quadnas.latency.card import (
    DeviceCard,
    DeviceFacts,
    HeldOut,
    LeftOut,
    Sampled,
    read_card,
    write_card,
)
from quadnas.latency.model import Arrays
from quadnas.latency.names import parts
from quadnas.network import load_space
from quadnas.resources import locate
from quadnas.run.atomic import commit_bytes

ARRAY_FILE = "coefficients.safetensors"
ENOUGH = 100  # covered networks, for quantiles of their own

Values = NDArray[np.float64]


def fit_device(
    name: str,
    data: Sequence[Path],
    out: Path,
    ffn_blocks: Path | None = None,
    kernel_tables: Path | None = None,
    select: bool = False,
) -> DeviceCard:
    """Fit the device ``name`` to measured networks and write its card and arrays into the folder ``out``.

    ``name`` is a known device, whose facts are kept, or the path of a YAML file with the facts of a new
    one (``DeviceFacts``). ``ffn_blocks`` is a table of measured blocks that sets the stand-in for LayerNorm,
    ``kernel_tables`` a folder of measured kernels that are carried over to an A100. ``select`` chooses the terms
    anew among the candidates of the facts (``quadnas.calibrate.selection``). The result depends on nothing but
    the arguments. Raises ConfigError, DataError.
    """
    facts = _facts(name)
    check_terms(facts)
    networks = [
        network
        for path in data
        for network in read_measured(path, facts.measured_column, facts.measured_batch, facts.reading)
    ]
    if select:
        facts = facts.model_copy(update={"terms": select_terms(facts, networks)})
    card, file = fit_networks(facts, networks, ffn_blocks=ffn_blocks, kernel_tables=kernel_tables)
    out.mkdir(parents=True, exist_ok=True)
    commit_bytes(out / ARRAY_FILE, file)
    commit_bytes(out / "card.yaml", write_card(card))
    return card


def fit_networks(
    facts: DeviceFacts,
    networks: Sequence[MeasuredNetwork],
    importance: Values | None = None,
    judged: NDArray[np.bool_] | None = None,
    ffn_blocks: Path | None = None,
    kernel_tables: Path | None = None,
) -> tuple[DeviceCard, bytes]:
    """The card and the array file of a device; the held-out fifth of ``networks`` is never fitted.

    ``importance`` (networks,) weighs the squared errors of those that are fitted. ``judged`` (networks,) marks
    the fitted ones whose errors stand for those to come, all by default. Raises ConfigError for too few.
    """
    held_out = np.array([network.held_out for network in networks])
    if held_out.all() or not held_out.any():
        raise ConfigError(f"{len(networks)} networks are too few to fit and to check; give hundreds")
    design, sampled = Design.of(facts, networks), _sampled(facts, networks, ~held_out)
    if kernel_tables is not None:
        design, transferred = with_tables(facts, networks, ~held_out, kernel_tables)
        sampled = {op: sampled.get(op, ()) + transferred.get(op, ()) for op in sorted(sampled | transferred)}
    weights = np.ones(len(networks)) if importance is None else importance
    judged = ~held_out if judged is None else judged & ~held_out
    arrays = design.solve(~held_out, weights)
    file = safetensors.numpy.save(arrays)
    ratios = unseen_ratios(design, networks, ~held_out, weights)[judged[~held_out]]
    checked = design.predict_ms(arrays)[held_out], design.measured_ms[held_out]
    card = DeviceCard(
        **dict(facts),
        held_out=_held_out(*checked),
        families_left_out=(),
        error_quantiles=quantiles(ratios),
        sampled=sampled,
        arrays={ARRAY_FILE: hashlib.sha256(file).hexdigest()},
    )
    card = _with_interval(card, arrays, list(compress(networks, judged)), ratios)
    card = _checked_interval(card, arrays, [network for network in networks if network.held_out])
    families = _families(list(compress(networks, judged | held_out)))
    left_out = tuple(_left_out(card, design, networks, ~held_out, family) for family in families)
    card = card.model_copy(update={"families_left_out": left_out})
    if ffn_blocks is not None:
        rule = layernorm_rule(Additive(card, arrays, card.measured_batch), ffn_blocks)
        card = card.model_copy(update={"surrogates": {**card.surrogates, "layernorm": rule}})
    return _with_winners(card, arrays, design, networks, weights, judged, ratios), file


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


def _with_interval(
    card: DeviceCard, arrays: Arrays, judged: Sequence[MeasuredNetwork], ratios: Values
) -> DeviceCard:
    """The card with the ``ratios`` of covered networks alone, if there are enough.

    The errors of surrogates are added to an interval: it must not hold them already.
    """
    known = covered(estimates(Additive(card, arrays, card.measured_batch), judged))
    if known.sum() < ENOUGH:
        return card
    return card.model_copy(update={"error_quantiles": quantiles(ratios[known])})


def _checked_interval(card: DeviceCard, arrays: Arrays, held_out: Sequence[MeasuredNetwork]) -> DeviceCard:
    """The card with the share of covered held-out networks that its 90 % interval holds."""
    found = estimates(Additive(card, arrays, card.measured_batch), held_out)
    measured_ms = np.array([network.latency_ms for network in held_out])
    coverage = interval_coverage(found, measured_ms, among=covered(found))
    figures = {"interval_90": coverage and _figure(coverage)}
    return card.model_copy(update={"held_out": card.held_out and card.held_out.model_copy(update=figures)})


def _with_winners(
    card: DeviceCard,
    arrays: Arrays,
    design: Design,
    networks: Sequence[MeasuredNetwork],
    importance: Values,
    judged: NDArray[np.bool_],
    ratios: Values,
) -> DeviceCard:
    """The card with the bias of winners; ``ratios`` are measured/predicted of the ``judged`` networks."""
    model = Additive(card, arrays, card.measured_batch)
    fitted = np.array([not network.held_out for network in networks])
    resampled = [design.solve(fitted, importance * drawn) for drawn in importances(networks)]
    error = kernel_error(estimates(model, list(compress(networks, judged))), ratios)
    winners = winners_in(load_space(card.winners_space), model, resampled, error)
    return card.model_copy(update={"winners": winners})


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
    found, measured_ms = estimates(model, members), design.measured_ms[theirs]
    predicted_ms = np.array([one.latency_ms for one in found], dtype=np.float64)
    coverage = interval_coverage(found, measured_ms)
    return LeftOut(
        family=family,
        models=len(members),
        within_5=_figure(within(predicted_ms, measured_ms, 0.05)),
        within_10=_figure(within(predicted_ms, measured_ms, 0.10)),
        bias=_figure(np.nanmedian(predicted_ms / measured_ms) - 1),
        exact=_figure(fmean(one.shares["exact"] for one in found)),
        interval_90=coverage and _figure(coverage),
    )


def _figure(value: float) -> float:
    return round(float(value), 4)
