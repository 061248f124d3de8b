"""The only place that parses a quantity with its unit."""

import math
import re
from collections.abc import Mapping
from fractions import Fraction

from quadnas.errors import ConfigError

_POWER_OF_TEN = {"us": -3, "ms": 0, "s": 3}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s)")
_THOUSANDS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kMG]?)")
_BYTE_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_BYTES = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kMG]?B|[KMG]iB)")
_LARGEST = 10**18
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")


def parse_latency_ms(text: str) -> float:
    """Read a latency such as ``300ms``, ``0.3s`` or ``2500us``; returns milliseconds, correctly rounded.

    Raises ConfigError for anything else: a bare number, another unit, a sign, zero, other scripts' digits.
    """
    match = _DURATION.fullmatch(text)
    value_ms = float(f"{match[1]}e{_POWER_OF_TEN[match[2]]}") if match else math.nan
    if not (math.isfinite(value_ms) and value_ms > 0):
        raise ConfigError(
            f"a latency is a positive number with its unit, not {text!r}; "
            "allowed units: us, ms, s; for example --max-latency 300ms"
        )
    return value_ms


class LatenciesMs(tuple[float, ...]):
    """Several latencies as one value of an option, ascending."""

    __slots__ = ()


def parse_latencies_ms(text: str) -> LatenciesMs:
    """Read latencies such as ``100ms,200ms``; raises ConfigError for anything else."""
    return LatenciesMs(sorted(parse_latency_ms(part) for part in text.split(",")))


def parse_count(text: str) -> int:
    """Read a number of things such as ``5M``, ``600k`` or ``1200000``; raises ConfigError for anything else."""
    return _whole(
        text, _COUNT, _THOUSANDS, "a count is a positive number, with k, M or G for short; such as 5M"
    )


def parse_bytes(text: str) -> int:
    """Read a size such as ``20MB`` or ``512KiB``; returns bytes. Raises ConfigError for anything else."""
    rule = "a size is a positive number with B, kB, MB, GB, KiB, MiB or GiB; such as 20MB"
    return _whole(text, _BYTES, _BYTE_UNITS, rule)


def _whole(text: str, pattern: re.Pattern[str], units: Mapping[str, int], rule: str) -> int:
    """Rounded down: a limit is never loosened."""
    match = pattern.fullmatch(text)
    value = int(Fraction(match[1]) * units[match[2]]) if match else 0
    if not 0 < value < _LARGEST:
        raise ConfigError(f"{rule}, not {text!r}")
    return value


def parse_percent(text: str) -> float:
    """Read a share such as ``5%``; returns a fraction in [0, 1). Raises ConfigError for anything else."""
    match = _PERCENT.fullmatch(text)
    fraction = float(f"{match[1]}e-2") if match else math.nan
    if not 0 <= fraction < 1:
        raise ConfigError(f"a margin is a percentage from 0% to below 100%, not {text!r}; for example 5%")
    return fraction
