"""Device name or path -> latency model, every byte verified before use."""

import hashlib
from pathlib import Path
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from quadnas.errors import ConfigError, DataError
from quadnas.latency.card import DeviceCard, read_card
from quadnas.latency.model import BACK_ENDS, LatencyModel
from quadnas.resources import available, locate

KIND = "latency_predictors"


def available_devices() -> list[str]:
    """The names of all devices, shipped and under $QUADNAS_HOME."""
    return list(available(KIND))


def find_device(name: str) -> tuple[Path, DeviceCard]:
    """The folder of a device, given by name or as that folder, and its card; the arrays are not read.

    Raises ConfigError if there is no such device, DataError if the card is damaged.
    """
    folder = locate(KIND, name)
    if not (folder / "card.yaml").exists():
        raise ConfigError(
            f"{folder} is no device: a device is a folder with card.yaml and its arrays; "
            f"by name there are: {', '.join(available_devices())}"
        )
    return folder, read_card(folder / "card.yaml")


def load_device(name: str, batch: int | None = None) -> LatencyModel:
    """The latency model of a device, given by name or as the path of its folder.

    ``batch`` defaults to the card's. Raises ConfigError for an unknown device or a batch it was not made
    for, DataError, naming the file, for anything damaged, missing or not matching its checksum.
    """
    folder, card = find_device(name)
    batch = card.batch if batch is None else batch
    low, high = card.batches
    if not low <= batch <= high:
        allowed = f"{low}" if low == high else f"{low} to {high}"
        raise ConfigError(
            f"device {card.device!r} has no prices at batch {batch}; allowed: {allowed}; "
            f"leave --batch away for {card.batch}"
        )
    arrays: dict[str, NDArray[Any]] = {}
    for file, digest in card.arrays.items():
        arrays.update(_read_arrays(folder / file, digest))
    return BACK_ENDS[card.back_end](card, arrays, batch)


def _read_arrays(path: Path, digest: str) -> dict[str, NDArray[Any]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; restore the device's folder") from None
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise DataError(
            f"{path} has sha256 {found}, its card says {digest}: it was damaged or exchanged; restore it"
        )
    try:
        return dict(safetensors.numpy.load(data))
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"{path} is not a safetensors file: {error}") from None
