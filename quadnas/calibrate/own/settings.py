"""What a calibration is asked for, checked before torch is imported."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from quadnas.config import Settings
from quadnas.resources import own_entry


class CalibrateSettings(Settings):
    """One calibration; ``minutes`` is what it may take, ``space`` and ``input_size`` give the whole networks."""

    device: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)]
    runtime: str
    space: str = "quadranet_xs"
    input_size: Annotated[int, Field(ge=8, le=1024)] = 224
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    minutes: Annotated[float, Field(gt=0, le=24 * 60)] = 25.0


def calibration_folder(device: str, out: Path | None) -> Path:
    """Where a calibration lives: ``out``, else where ``--device NAME`` finds it."""
    return own_entry("latency_predictors", device) if out is None else out
