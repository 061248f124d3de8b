"""What a finished search leaves behind (``result.json``): the answer and the evidence for it."""

from pathlib import Path

from pydantic import ValidationError

from quadnas.config import Settings
from quadnas.errors import DataError


class SlotRecord(Settings):
    """One slot: its stage (from 0), its candidates' labels, their latencies, the one chosen, its map's side."""

    stage: int
    labels: tuple[str, ...]
    latency_ms: tuple[float | None, ...]
    chosen: int
    train_map: int
    deployed_map: int


class SurrogateRecord(Settings):
    """Kernels of one operator priced by a stand-in: their ms together, its relative one-sigma error, and why."""

    op: str
    latency_ms: float
    error: float
    reason: str


class SearchResult(Settings):
    """``latency_ms`` is the prediction for the whole derived network; ``bound_ms`` what was held to ``limit_ms``.

    The bound is the prediction with the margin and the one-sided error that the user asked for. ``shares`` are
    shares of predicted ms by coverage; ``surrogates`` says which operators are priced by a stand-in, and why;
    ``feasible_ms`` is the range of bounds in the space. Accuracies are fractions of the test split at
    ``train_size`` pixels.
    """

    architecture: str
    latency_ms: float
    bound_ms: float
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
