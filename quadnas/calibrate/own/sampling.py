"""Which kernels to measure: nn-Meter's prior ranges, extended to our operators, then finer around bad points.

Source of the ranges: nn-Meter's prior sampler (maps; zoo channels with their medians and 95th percentiles).
A kernel alone would be charged for the runtime's change of layout at both ends and run from warm caches, so
one sample is a chain: kernels of one family with LayerNorm between them, which no runtime fuses across.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from quadnas.latency.kernels import Kernel, Operator

MAPS = (1, 3, 4, 7, 8, 13, 14, 16, 27, 28, 32, 56, 112, 224)
CONV_CHANNELS = ((0.0, 3), (0.5, 160), (0.95, 1060), (1.0, 2160))
DEPTHWISE_CHANNELS = ((0.0, 11), (0.5, 116), (0.95, 960), (1.0, 1152))
FC_CHANNELS = ((0.0, 64), (0.5, 512), (1.0, 4096))
DEPTHWISE_KERNELS = (3, 5, 7, 9, 11, 13)
CONV_KERNELS = (3, 5, 7)
PATCHES = (2, 4)
LENGTH = 4
MAX_ELEMENTS = 1_500_000
MAX_MACS = 250_000_000
FINER = (0.5, 1.2)
"""Around a bad point channels are drawn from this multiple of its own, as nn-Meter does."""

Chain = tuple[Operator, ...]


@dataclass
class _Builder:
    """A growing chain of operators; ``h`` and ``c`` are the side and channels of its present output."""

    h: int
    c: int
    operators: list[Operator] = field(default_factory=list)

    @property
    def last(self) -> int:
        return len(self.operators) - 1

    def then(
        self, op: str, cout: int = 0, kernel: int = 1, stride: int = 1, source: int | None = None
    ) -> int:
        """Append an operator reading ``source`` (the last output) and return its position."""
        source = self.last if source is None else source
        shape = Kernel(op, self.h, self.h, (self.c,), cout or self.c, kernel, stride)
        self.operators.append(Operator(shape, (source,)))
        self.c = cout or self.c
        if stride > 1:
            self.h = -(-self.h // stride)
        elif op == "global-pool":
            self.h = 1
        return self.last

    def join(self, op: str, one: int, other: int) -> int:
        """Append a sum or product of two earlier outputs."""
        shape = Kernel(op, self.h, self.h, (self.c, self.c), self.c)
        self.operators.append(Operator(shape, (one, other)))
        return self.last


Channels = Callable[[], int]
Draw = random.Random


def _layernorm(b: _Builder, draw: Draw, channels: Channels) -> None:
    b.then("layernorm")


def _pointwise(b: _Builder, draw: Draw, channels: Channels) -> None:
    b.then("conv", channels())


def _gelu(b: _Builder, draw: Draw, channels: Channels) -> None:
    b.then("conv", channels())
    b.then("gelu")


def _mlp(b: _Builder, draw: Draw, channels: Channels) -> None:
    start, narrow = b.last - 1, b.c
    b.then("conv", channels())
    b.then("gelu")
    b.join("add", start, b.then("conv", narrow))


def _add(b: _Builder, draw: Draw, channels: Channels) -> None:
    b.join("add", b.last - 1, b.then("conv", b.c))


def _conv(b: _Builder, draw: Draw, channels: Channels) -> None:
    b.then("conv", channels(), draw.choice(CONV_KERNELS), draw.choice((1, 1, 2)) if b.h > 2 else 1)


def _patchify(b: _Builder, draw: Draw, channels: Channels) -> None:
    if sides := [side for side in PATCHES if b.h % side == 0]:
        side = draw.choice(sides)
        b.then("conv", channels(), side, side)


def _depthwise(b: _Builder, draw: Draw, channels: Channels) -> None:
    for _ in range(3):
        b.then("dwconv", kernel=draw.choice(DEPTHWISE_KERNELS))


def _mul(b: _Builder, draw: Draw, channels: Channels) -> None:
    source, side = b.last, draw.choice(DEPTHWISE_KERNELS)
    b.join("mul", *(b.then("dwconv", kernel=side, source=source) for _ in range(2)))
    b.then("dwconv", kernel=side)


def _quadratic(b: _Builder, draw: Draw, channels: Channels) -> None:
    source, side = b.last, draw.choice(DEPTHWISE_KERNELS)
    one, two, three = (b.then("dwconv", kernel=side, source=source) for _ in range(3))
    b.join("add", source - 1, b.join("add", b.join("mul", one, two), three))


def _pool(b: _Builder, draw: Draw, channels: Channels) -> None:
    b.then("global-pool")


def _fc(b: _Builder, draw: Draw, channels: Channels) -> None:
    b.then("fc", channels())


@dataclass(frozen=True, slots=True)
class _Family:
    grow: Callable[[_Builder, Draw, Channels], None]
    channels: tuple[tuple[float, int], ...] = CONV_CHANNELS
    maps: tuple[int, ...] = MAPS
    length: int = LENGTH


FAMILIES = {
    "layernorm": _Family(_layernorm),
    "pointwise": _Family(_pointwise),
    "gelu": _Family(_gelu),
    "mlp": _Family(_mlp, length=2),
    "add": _Family(_add),
    "conv": _Family(_conv),
    "patchify": _Family(_patchify, length=2),
    "dwconv": _Family(_depthwise, DEPTHWISE_CHANNELS, MAPS[1:], length=2),
    "mul": _Family(_mul, DEPTHWISE_CHANNELS, MAPS[1:], length=2),
    "quadratic": _Family(_quadratic, DEPTHWISE_CHANNELS, MAPS[1:], length=2),
    "global-pool": _Family(_pool, length=1),
    "fc": _Family(_fc, FC_CHANNELS, (1,)),
}


def prior_chain(family: str, draw: random.Random) -> Chain:
    """One chain of a family, drawn from the prior and small enough to be measured in milliseconds."""
    chosen = FAMILIES[family]
    return _fitting(family, draw, lambda: draw.choice(chosen.maps), lambda: _inverse(chosen.channels, draw))


def finer_chain(family: str, bad: Chain, draw: random.Random) -> Chain:
    """One chain beside ``bad``: its map, and channels between 0.5 and 1.2 times its own."""
    side = bad[0].kernel.h
    centre = [operator.kernel.cout for operator in bad]

    def channels() -> int:
        return max(1, round(draw.choice(centre) * draw.uniform(*FINER)))

    return _fitting(family, draw, lambda: side, channels)


def reference_chain() -> Chain:
    """A fixed piece of work of some 0.2 ms that uses arithmetic and memory as a network does."""
    draw = random.Random(0)  # noqa: S311
    builder = _Builder(14, 64)
    builder.then("layernorm", source=-1)
    for grow in (_quadratic, _mlp):
        builder.then("layernorm")
        grow(builder, draw, lambda: 256)
    return tuple(builder.operators)


def _fitting(family: str, draw: random.Random, side: Callable[[], int], channels: Channels) -> Chain:
    while True:
        builder = _Builder(side(), channels())
        builder.then("layernorm", source=-1)
        for _ in range(FAMILIES[family].length):
            builder.then("layernorm")
            FAMILIES[family].grow(builder, draw, channels)
        builder.then("layernorm")
        if _cost(builder.operators) <= MAX_MACS:
            return tuple(builder.operators)


def _cost(operators: Sequence[Operator]) -> float:
    """Multiply-accumulates, infinite where a map is too large."""
    total = 0.0
    for kernel in (operator.kernel for operator in operators):
        positions = (kernel.h / kernel.stride) ** 2
        if max(kernel.h**2 * kernel.cin, positions * kernel.cout) > MAX_ELEMENTS:
            return float("inf")
        depth = 1 if kernel.op == "dwconv" else kernel.cin
        total += positions * kernel.cout * kernel.kernel**2 * (depth if kernel.op in ("conv", "fc") else 1)
    return total


def _inverse(points: Sequence[tuple[float, int]], draw: random.Random) -> int:
    """A value of the distribution with these quantiles; three of four are multiples of 8, as in real networks."""
    share = draw.random()
    (low, first), (high, last) = next(pair for pair in pairwise(points) if share <= pair[1][0])
    value: float = first * (last / first) ** ((share - low) / (high - low))
    return max(8, round(value / 8) * 8) if draw.random() < 0.75 else round(value)
