"""Which activations a runtime fuses into the convolution before them, by nn-Meter's rule test.

Convolution, activation and the pair of both are timed; the pair is one kernel if it saves more than half of the
activation, the cheaper of the two. Batch normalisation is always folded: networks are deployed so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from quadnas.calibrate.own.bench import Measured
from quadnas.calibrate.own.runtime import Graph
from quadnas.latency.kernels import Kernel, Operator

FIRST = ("conv", "dwconv")
ACTIVATIONS = ("relu", "hswish", "gelu")
LEFT = 0.5  # share of the activation's time that fusing may leave, as in nn-Meter
FREE = 0.2  # a fused activation of which no more than this is left is free
_SIDE, _NARROW, _WIDE = 28, 8, 256  # a convolution that does not drown the activation behind it
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
    fusion = [(first, "bn") for first in FIRST]
    left: dict[str, list[float]] = {}
    for first in FIRST:
        for activation in ACTIVATIONS:
            alone_ms = times_ms[(activation,)] - times_ms[()]
            behind_ms = times_ms[first, activation] - times_ms[(first,)]
            if behind_ms < LEFT * alone_ms:
                fusion += [(first, activation), (f"{first}-bn", activation)]
                left.setdefault(activation, []).append(behind_ms / alone_ms)
    free = [activation for activation, shares in left.items() if max(shares) <= FREE]
    return Rules(tuple(fusion), ("bn", *free))


def _probe(ops: Sequence[str]) -> tuple[Operator, ...]:
    narrow = _NARROW if ops[:1] == ("conv",) else _WIDE
    names = ("layernorm", "layernorm", *ops, "layernorm")
    channels = [narrow] * 3 + [_WIDE] * (len(ops) + 1)
    return tuple(
        Operator(Kernel(op, _SIDE, _SIDE, (cin,), cout, 3 if op in FIRST else 1), (position - 1,))
        for position, (op, cin, cout) in enumerate(zip(names, channels[:-1], channels[1:], strict=True))
    )
