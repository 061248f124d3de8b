"""What the user's own device really took: a journal per device, and the scale that follows from it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated

from pydantic import Field, ValidationError

from quadnas.config import Settings, write_yaml
from quadnas.errors import ConfigError, DataError
from quadnas.latency.card import DeviceCard
from quadnas.latency.devices import load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import Estimate, LatencyModel, Price
from quadnas.latency.spread import UNSCALED, Scale
from quadnas.resources import is_name, own_entry
from quadnas.run.atomic import disk_errors
from quadnas.run.journal import Journal
from quadnas.run.lock import Lock
from quadnas.space.model_family import find_model

FEWEST = 2
"""Measurements before predictions are scaled: one alone may be a slip."""

_KIND = "measurements"
_NO_PRICE = {"description", "provenance", "licence", "source", "winners_space", "held_out", "families_left_out",
             "winners", "error_quantiles"}  # fmt: skip
Latency = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Measurement(Settings):
    """One line of the journal; ``predicted_ms`` is without any scale, by the predictor of that fingerprint."""

    model: str
    model_sha256: str
    kernels_sha256: str
    predictor_sha256: str
    batch: Annotated[int, Field(ge=1)]
    predicted_ms: Latency
    measured_ms: Latency
    date: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What the user says: the file or name of the model, its measured ms, and the date."""

    model: Path
    latency_ms: float
    date: str


def load_corrected(name: str, batch: int | None = None) -> LatencyModel:
    """``load_device``, its prices scaled by the user's own measurements; raises as that and ``scale_of`` do."""
    model = load_device(name, batch)
    scale = scale_of(model.card)
    return model if scale == UNSCALED else Scaled(model, scale)


class Scaled(LatencyModel):
    """A model with all prices times the factor of a scale."""

    def __init__(self, model: LatencyModel, scale: Scale) -> None:
        super().__init__(model.card, model.arrays, model.batch)
        self._model = model
        self.scale = scale

    def price(self, kernels: Sequence[Kernel]) -> list[Price]:
        """The model's prices, scaled."""
        factor = self.scale.factor
        return [
            price if price.latency_ms is None else replace(price, latency_ms=price.latency_ms * factor)
            for price in self._model.price(kernels)
        ]


def scale_of(card: DeviceCard) -> Scale:
    """The median of measured/predicted over the models measured on a device, from the second measurement on.

    A model that is measured again counts with its newest value, a line of another version of the predictor not
    at all. Raises DataError for a damaged journal.
    """
    path = journal_path(card)
    predictor = _predictor(card)
    newest: dict[str, float] = {}
    stale = set()
    count = 0
    for number, event in enumerate(Journal(path).read(), 1):
        try:
            line = Measurement.model_validate(event)
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(
                f"{path}: line {number} is no measurement ({'.'.join(map(str, first['loc']))}: {first['msg']}); "
                "remove that line or restore the file from a copy"
            ) from None
        if line.predictor_sha256 == predictor:
            newest[line.kernels_sha256] = line.measured_ms / line.predicted_ms
            count += 1
        else:
            stale.add(line.kernels_sha256)
    unused = len(stale - newest.keys())
    if count < FEWEST:
        return Scale(stale=unused)
    return Scale(median(newest.values()), len(newest), unused)


def record(estimate: Estimate, batch: int, measured: Measured) -> Scale:
    """Append a measurement of a network to its device's journal, durably; returns the scale from then on.

    ``estimate`` is the network's, scaled or not. Raises ConfigError for a
    model that cannot be read, DataError for a damaged journal, MachineError (disk).
    """
    path = journal_path(estimate.card)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    total_ms = estimate.upper_ms(None)
    line = Measurement(
        model=measured.model.name,
        model_sha256=_sha256(_read(measured.model)),
        kernels_sha256=_sha256("\n".join(sorted(map(repr, estimate.kernels))).encode()),
        predictor_sha256=_predictor(estimate.card),
        batch=batch,
        predicted_ms=total_ms / estimate.scale.factor,
        measured_ms=measured.latency_ms,
        date=measured.date,
    )
    lock = Lock(path.with_suffix(".lock"))
    lock.acquire(wait=True)
    try:
        journal = Journal(path)
        journal.repair()
        journal.append(line.model_dump())
        journal.sync()
        return scale_of(estimate.card)
    finally:
        lock.release()


def journal_path(card: DeviceCard) -> Path:
    """Where a device's measurements lie."""
    return own_entry(_KIND, card.device).with_suffix(".jsonl")


def _predictor(card: DeviceCard) -> str:
    """The fingerprint of what makes prices: the facts, the ranges, and the checksums of the arrays."""
    facts = card.model_dump(mode="json", exclude=_NO_PRICE, exclude_defaults=True)
    return _sha256(json.dumps(facts, sort_keys=True).encode())


def _read(path: Path) -> bytes:
    """The file that was measured; of a model called by its name, the spec it stands for."""
    if is_name(str(path)):
        return write_yaml(find_model(path)).encode()
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; give the file that was measured") from None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
