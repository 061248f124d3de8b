"""The only place that parses a quantity with its unit."""

import math
import re

from quadnas.errors import ConfigError

_POWER_OF_TEN = {"us": -3, "ms": 0, "s": 3}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s)")
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


def parse_percent(text: str) -> float:
    """Read a share such as ``5%``; returns a fraction in [0, 1). Raises ConfigError for anything else."""
    match = _PERCENT.fullmatch(text)
    fraction = float(f"{match[1]}e-2") if match else math.nan
    if not 0 <= fraction < 1:
        raise ConfigError(f"a margin is a percentage from 0% to below 100%, not {text!r}; for example 5%")
    return fraction
