"""What is pinned of nn-Meter's published predictors: their devices, and the sha256 of every file."""

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from quadnas.config import Settings, read_settings
from quadnas.latency.card import DeviceFacts


class PinnedFile(Settings):
    """One forest of a published archive."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=1)]


class Published(Settings):
    """One published predictor: its device, its forests by kernel, and those that an archive may lack."""

    facts: DeviceFacts
    optional: tuple[str, ...]
    files: dict[str, PinnedFile]


class _File(Settings):
    predictors: dict[str, Published]


@cache
def published() -> dict[str, Published]:
    """nn-Meter's predictors by the names it gives them."""
    return read_settings(Path(__file__).with_name("official.yaml"), _File).predictors
