"""Which activations a runtime fuses into the convolution before them, by nn-Meter's rule test.

Convolution, activation and the pair of both are timed; the pair is one kernel if it saves more than half of the
cheaper of the two. Batch normalisation is always folded: networks are deployed so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from quadnas.calibrate.bench import Measured
from quadnas.calibrate.runtime import Graph
from quadnas.latency.kernels import Kernel, Operator

FIRST = ("conv", "dwconv")
ACTIVATIONS = ("relu", "hswish", "gelu")
SAVED = 0.5  # share of the cheaper operator that fusing must save, as in nn-Meter
FREE = 0.2  # a fused activation that costs no more than this share of itself alone is free
_SIDE, _CHANNELS = 28, 128
_PROBES = ((), *((op,) for op in (*FIRST, *ACTIVATIONS)), *((a, b) for a in FIRST for b in ACTIVATIONS))


@dataclass(frozen=True, slots=True)
class Rules:
    """Pairs that are one kernel, and the operators that are free in one, as a card has them."""

    fusion: tuple[tuple[str, str], ...]
    folded: tuple[str, ...]


def probes() -> list[Graph]:
    """The graphs to measure: nothing, every operator, every pair, between LayerNorms."""
    return [Graph("fusion", _probe(ops)) for ops in _PROBES]


def rules_from(measured: Sequence[Measured]) -> Rules:
    """The rules that the measured ``probes`` show."""
    times_ms = dict(zip(_PROBES, (one.timing.latency_ms for one in measured), strict=True))
    cost_ms = {ops: latency_ms - times_ms[()] for ops, latency_ms in times_ms.items()}
    fusion = [(first, "bn") for first in FIRST]
    fused: dict[str, list[float]] = {}
    for first in FIRST:
        for activation in ACTIVATIONS:
            one, other, both = cost_ms[(first,)], cost_ms[(activation,)], cost_ms[first, activation]
            if one + other - both > SAVED * min(one, other) > 0:
                fusion += [(first, activation), (f"{first}-bn", activation)]
                fused.setdefault(activation, []).append((both - one) / other)
    free = [activation for activation, shares in fused.items() if max(shares) <= FREE]
    return Rules(tuple(fusion), ("bn", *free))


def _probe(ops: Sequence[str]) -> tuple[Operator, ...]:
    names = ("layernorm", "layernorm", *ops, "layernorm")
    return tuple(
        Operator(
            Kernel(op, _SIDE, _SIDE, (_CHANNELS,), _CHANNELS, 3 if op in FIRST else 1),
            (position - 1,),
        )
        for position, op in enumerate(names)
    )
