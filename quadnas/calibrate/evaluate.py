"""How far a latency model is from measured networks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from quadnas.calibrate.measured import MeasuredNetwork
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import LatencyModel

Values = NDArray[np.float64]


def predict_ms(model: LatencyModel, networks: Sequence[MeasuredNetwork]) -> Values:
    """Predicted latency of every network, NaN where a kernel is uncovered; each kernel is priced once."""
    index: dict[Kernel, int] = {}
    members = [[index.setdefault(kernel, len(index)) for kernel in net.kernels] for net in networks]
    prices_ms = np.array([p.latency_ms for p in model.price(list(index))], dtype=np.float64)
    return np.array([prices_ms[member].sum() for member in members])


def evaluate(model: LatencyModel, networks: Sequence[MeasuredNetwork]) -> dict[str, Any]:
    """The report of ``quadnas predictors evaluate``: shares are fractions of all networks.

    A network with an uncovered kernel counts as a miss; ``rmspe`` and ``spearman`` are over the others,
    None where they are undefined.
    """
    measured_ms = np.array([network.latency_ms for network in networks])
    predicted_ms = predict_ms(model, networks)
    families = np.array([network.family for network in networks])
    return {
        "device": model.card.device,
        "models": len(networks),
        "uncovered_models": int(np.isnan(predicted_ms).sum()),
        **error_figures(predicted_ms, measured_ms),
        "families": {
            str(family): {
                "models": int((families == family).sum()),
                "within_10": within(predicted_ms, measured_ms, 0.10, families == family),
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
