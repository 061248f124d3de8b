"""What a finished search leaves behind (``result.json``): the answer and the evidence for it."""

from pathlib import Path

from pydantic import ValidationError

from quadnas.config import Settings
from quadnas.errors import DataError


class SlotRecord(Settings):
    """One slot: its stage (from 0), its candidates' labels, their latencies, the one chosen, its map's side.

    ``fits``: whether the network is within all limits with each candidate in this slot and the others as chosen;
    empty while nothing is.
    """

    stage: int
    labels: tuple[str, ...]
    latency_ms: tuple[float | None, ...]
    chosen: int
    fits: tuple[bool, ...]
    train_map: int
    deployed_map: int


class SurrogateRecord(Settings):
    """Kernels of one operator priced by a stand-in: their ms together, its relative one-sigma error, and why."""

    op: str
    latency_ms: float
    error: float
    reason: str


class IntervalRecord(Settings):
    """Where the measured latency lies with probability ``confidence``.

    ``calibrated`` if nothing in the prediction is a stand-in or extrapolated: only then has the interval been
    checked by measurement.
    """

    confidence: float
    low: float
    high: float
    calibrated: bool


class SearchResult(Settings):
    """``latency_ms`` is the prediction for the whole derived network; ``bound_ms`` what was held to ``limit_ms``.

    The bound is the prediction with the one-sided error that the user asked for, as a winner of a search has it.
    ``interval_ms`` is that of a winner, None if the device was never checked; ``scale`` says in words how the
    user's own measurements changed the prediction, if they did. ``shares`` are
    shares of predicted ms by coverage; ``surrogates`` says which operators are priced by a stand-in, and why;
    ``feasible_ms`` is the range of bounds in the space. Accuracies are fractions of the test split at
    ``train_size`` pixels.
    """

    architecture: str
    latency_ms: float
    bound_ms: float
    interval_ms: IntervalRecord | None
    scale: str
    limit_ms: float
    feasible_ms: tuple[float, float]
    shares: dict[str, float]
    surrogates: tuple[SurrogateRecord, ...]
    slots: tuple[SlotRecord, ...]
    parameters: int
    train_size: int
    inherited_accuracy: float
    accuracy: float
    retrained: bool
    demonstration: bool
    data_note: str
    files: dict[str, str]


def read_result(path: Path) -> SearchResult:
    """The result that a finished search wrote; raises DataError if it is not whole."""
    try:
        return SearchResult.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(
            f"{path} is corrupt ({error.errors()[0]['msg']}); remove it, and --resume {path.parent} writes it anew"
        ) from None
