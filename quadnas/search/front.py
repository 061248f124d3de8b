"""The front of a search under several limits on its first device: the files of every limit, and reading it back.

A search under one limit is a front of one point.
"""

from dataclasses import dataclass
from pathlib import Path

from quadnas.search.result import SearchResult, read_result
from quadnas.search.settings import SearchSettings
from quadnas.search.strategy import STRATEGIES, OneShot

RESULT, MODEL = "result.json", "model.yaml"
WEIGHTS, RETRAINED = "model.safetensors", "retrained.safetensors"


@dataclass(frozen=True, slots=True)
class PointFiles:
    """What the files of one limit are called: result, model spec, its weights before and after retraining."""

    result: str
    model: str
    weights: str
    retrained: str


def files_of(limit_ms: float, settings: SearchSettings) -> PointFiles:
    """The names for one limit of a search; the loosest has plain names, as a search under one limit."""

    def name(plain: str) -> str:
        if limit_ms == settings.max_latency_ms:
            return plain
        stem, suffix = plain.split(".")
        return f"{stem}-{limit_ms:g}ms.{suffix}".replace("+", "")

    return PointFiles(name(RESULT), name(MODEL), name(WEIGHTS), name(RETRAINED))


def weights_origin(settings: SearchSettings) -> str:
    """What the weights are before any retraining: ``inherited`` from a supernet, or ``fresh`` without one."""
    return "inherited" if issubclass(STRATEGIES[settings.strategy], OneShot) else "fresh"


def read_front(settings: SearchSettings, path: Path) -> tuple[SearchResult, ...]:
    """The results under every limit of a finished search, the tightest first; raises DataError."""
    limits_ms = sorted((*settings.tighter_limits_ms, settings.max_latency_ms))
    return tuple(read_result(path / files_of(limit_ms, settings).result) for limit_ms in limits_ms)
