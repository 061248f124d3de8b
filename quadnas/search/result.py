"""What a finished search leaves behind (``result.json``): the answer and the evidence for it."""

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from quadnas.config import Settings, validated
from quadnas.errors import ConfigError, DataError


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


class LatencyRecord(Settings):
    """On one device: ``latency_ms`` is the network's prediction, ``bound_ms`` what was held to ``limit_ms``.

    The bound is the prediction with the one-sided error that the user asked for, as a winner of a search has it.
    ``interval_ms`` is that of a winner, None if the device was never checked; ``scale`` says in words how the
    user's own measurements changed the prediction, if they did. ``shares`` are shares of predicted ms by coverage;
    ``surrogates`` says which operators are priced by a stand-in, and why; ``feasible_ms`` is the range of bounds
    in the space.
    """

    latency_ms: float
    bound_ms: float
    interval_ms: IntervalRecord | None
    scale: str
    limit_ms: float
    feasible_ms: tuple[float, float]
    shares: dict[str, float]
    surrogates: tuple[SurrogateRecord, ...]


class SizeRecord(Settings):
    """A size that was limited: its unit in words, its value, the limit, and the range in the space."""

    unit: str
    value: int
    limit: int
    feasible: tuple[int, int]


class SearchResult(LatencyRecord):
    """What was found; the latency is that on ``device``, ``also`` those on further devices, by name.

    ``sizes``: those that were limited, by name (``parameters``, ``macs``, ``weight_bytes``). Accuracies are
    fractions of the ``test_images`` at ``train_size`` pixels; ``initial_accuracy`` is that before retraining.
    """

    architecture: str
    device: str
    also: dict[str, LatencyRecord] = Field(default_factory=dict)
    sizes: dict[str, SizeRecord] = Field(default_factory=dict)
    slots: tuple[SlotRecord, ...]
    parameters: int
    train_size: int
    test_images: int
    initial_accuracy: float
    accuracy: float
    retrained: bool
    demonstration: bool
    data_note: str
    files: dict[str, str]

    @property
    def latencies(self) -> dict[str, LatencyRecord]:
        """What is said of every device, by name; the first is that of the search's ``device``."""
        return {self.device: self, **self.also}


def result_data(result: SearchResult) -> dict[str, Any]:
    """The result as ``result.json`` holds it: with several devices, what is said of each is keyed by device."""
    data = result.model_dump(mode="json")
    also = data.pop("also")
    if also:
        for key in LatencyRecord.model_fields:
            data[key] = {result.device: data[key], **{name: record[key] for name, record in also.items()}}
    return data


def read_result(path: Path) -> SearchResult:
    """The result that a finished search wrote; raises DataError if it is not whole."""
    try:
        data = json.loads(path.read_bytes())
        if isinstance(data["latency_ms"], dict):
            devices = [name for name in data["latency_ms"] if name != data["device"]]
            data["also"] = {
                name: {key: data[key][name] for key in LatencyRecord.model_fields} for name in devices
            }
            data |= {key: data[key][data["device"]] for key in LatencyRecord.model_fields}
        return validated(data, SearchResult, path.name)
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise DataError(
            f"{path} is corrupt ({error!s:.200}); remove it, and --resume {path.parent} writes it anew"
        ) from None
