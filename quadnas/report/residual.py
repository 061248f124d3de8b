"""What a user measured beside what was predicted."""

from typing import Any

from quadnas.latency.measurements import FEWEST, Measured, journal_path, record
from quadnas.latency.model import Estimate
from quadnas.report.facts import ms
from quadnas.search.derivation import interval_record


def compare_measured(found: Estimate, batch: int, measured: Measured) -> tuple[dict[str, Any], str]:
    """Record a measured latency and compare it with the prediction: values for JSON, and a sentence.

    Raises as ``quadnas.latency.measurements.record`` does.
    """
    predicted_ms = found.upper_ms(None)
    interval = interval_record(found)
    inside = interval and interval.low <= measured.latency_ms <= interval.high
    scale = record(found, batch, measured)
    residual = measured.latency_ms / predicted_ms - 1
    place = "" if interval is None else f", {'inside' if inside else 'outside'} its 90 % interval"
    if scale.models:
        then = f"from now on predictions on {found.card.device} are {scale}"
    else:
        then = f"predictions are scaled from your measurement number {FEWEST} on"
    text = (
        f"measured {ms(measured.latency_ms)}: {abs(residual):.1%} {'above' if residual > 0 else 'below'} the "
        f"prediction{place}; recorded in {journal_path(found.card)}; {then}"
    )
    answer = {
        "latency_ms": measured.latency_ms,
        "residual": residual,
        "inside": inside,
        "scale": {"factor": scale.factor, "models": scale.models},
    }
    return answer, text
