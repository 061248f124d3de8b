"""How far a latency model is from measured networks."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from quadnas.calibrate.measured import MeasuredNetwork
from quadnas.latency.model import Estimate, LatencyModel

Values = NDArray[np.float64]

COVERED = 0.95
INTERVAL = 0.9
"""The confidence whose interval every report checks."""


def predict_ms(model: LatencyModel, networks: Sequence[MeasuredNetwork]) -> Values:
    """Predicted latency of every network, NaN where a kernel is uncovered; each kernel is priced once."""
    return np.array([found.latency_ms for found in estimates(model, networks)], dtype=np.float64)


def estimates(model: LatencyModel, networks: Sequence[MeasuredNetwork]) -> list[Estimate]:
    """The estimate of every network; each kernel is priced once."""
    unique = list(dict.fromkeys(kernel for network in networks for kernel in network.kernels))
    prices = dict(zip(unique, model.price(unique), strict=True))
    return [
        Estimate(net.kernels, tuple(prices[kernel] for kernel in net.kernels), model.card, model.scale)
        for net in networks
    ]


def covered(found: Sequence[Estimate]) -> NDArray[np.bool_]:
    """Which networks are covered: 95 % of their time, or more, is priced exactly."""
    return np.array([one.shares["exact"] >= COVERED for one in found], dtype=bool)


def interval_coverage(
    found: Sequence[Estimate],
    measured_ms: Values,
    confidence: float = INTERVAL,
    among: NDArray[np.bool_] | None = None,
) -> float | None:
    """Share of networks (``among`` some) whose measurement lies in the stated interval.

    None if none has a total and an interval.
    """
    counted = np.ones(len(found), dtype=bool) if among is None else among
    inside = [
        low_ms <= one_ms <= high_ms
        for one, one_ms, counts in zip(found, measured_ms.tolist(), counted.tolist(), strict=True)
        if counts and one.latency_ms is not None and one.card.error_quantiles is not None
        for low_ms, high_ms in (one.interval_ms(confidence),)
    ]
    return fmean(inside) if inside else None


def evaluate(model: LatencyModel, networks: Sequence[MeasuredNetwork]) -> dict[str, Any]:
    """The report of ``quadnas predictors evaluate``: shares are fractions of all networks.

    A network with an uncovered kernel counts as a miss; ``rmspe`` and ``spearman`` are over the others.
    ``interval_90`` is the share of measurements inside the stated 90 % interval, of the covered networks alone:
    the intervals of others hold the errors of surrogates, which nobody checked. None where undefined.
    """
    measured_ms = np.array([network.latency_ms for network in networks])
    found = estimates(model, networks)
    predicted_ms = np.array([one.latency_ms for one in found], dtype=np.float64)
    families = np.array([network.family for network in networks])
    known = covered(found)
    return {
        "device": model.card.device,
        "models": len(networks),
        "uncovered_models": int(np.isnan(predicted_ms).sum()),
        **error_figures(predicted_ms, measured_ms),
        "interval_90": interval_coverage(found, measured_ms, among=known),
        "families": {
            str(family): {
                "models": int((families == family).sum()),
                "within_10": within(predicted_ms, measured_ms, 0.10, families == family),
                "interval_90": interval_coverage(found, measured_ms, among=known & (families == family)),
            }
            for family in np.unique(families)
        },
    }


def error_figures(predicted_ms: Values, measured_ms: Values) -> Mapping[str, float | None]:
    """Shares within 5, 10 and 15 %, root mean square relative error, and rank correlation."""
    known = ~np.isnan(predicted_ms)
    relative = (predicted_ms / measured_ms - 1)[known]
    return {
        "within_5": within(predicted_ms, measured_ms, 0.05),
        "within_10": within(predicted_ms, measured_ms, 0.10),
        "within_15": within(predicted_ms, measured_ms, 0.15),
        "rmspe": float(np.sqrt(np.mean(relative**2))) if known.any() else None,
        "spearman": _spearman(predicted_ms[known], measured_ms[known]),
    }


def within(
    predicted_ms: Values, measured_ms: Values, tolerance: float, among: NDArray[np.bool_] | None = None
) -> float:
    """Share of networks (``among`` some) with \\|predicted - measured\\| <= tolerance * measured; NaN misses."""
    hits = np.abs(predicted_ms - measured_ms) <= tolerance * measured_ms
    return float(np.mean(hits if among is None else hits[among]))


def _spearman(predicted_ms: Values, measured_ms: Values) -> float | None:
    ranks = rankdata(predicted_ms), rankdata(measured_ms)
    if len(predicted_ms) < 2 or any(np.ptp(rank) == 0 for rank in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])
