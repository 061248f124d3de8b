"""nn-Meter's kernels: which of them an operator is, what its forest asks for, and where that was sampled.

Names, order and units of the features are those of nn-Meter 2.0 (Microsoft, MIT), whose forests expect them;
the sampled shapes are those of its published prior configurations.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from quadnas.latency.kernels import Kernel
from quadnas.latency.names import words

_NAMES = {
    "max-pool": "maxpool",
    "avg-pool": "avgpool",
    "global-pool": "global-avgpool",
    "channel_shuffle": "channelshuffle",
}
CHANNELS = 2160


def kernel_name(op: str) -> str:
    """The kernel of nn-Meter that a fused operator falls under: all convolutions are one, whatever follows.

    Where nn-Meter knows no name for a fused pair, and so prices it at nothing, the first operator counts.
    """
    found = words(op)
    for name in ("dwconv", "conv"):
        if name in found:
            return f"{name}-bn-relu"
    if found[:2] in (("bn", "relu"), ("add", "relu")):
        return "".join(found[:2])
    return _NAMES.get(found[0], found[0])


def features(name: str, kernel: Kernel) -> tuple[float, ...]:
    """What the forest ``name`` is asked with; maps are square to nn-Meter: only the height counts."""
    return KERNELS[name].features(kernel)


def _convolution(kernel: Kernel) -> tuple[float, ...]:
    return _weighted(kernel, kernel.cout * (kernel.kernel**2 * kernel.cin + 1))


def _depthwise(kernel: Kernel) -> tuple[float, ...]:
    return _weighted(kernel, kernel.cout * (kernel.kernel**2 + 1))


def _weighted(k: Kernel, parameters: int) -> tuple[float, ...]:
    flops = 2 * k.h / k.stride * k.h / k.stride * parameters
    return k.h, k.cin, k.cout, k.kernel, k.stride, flops / 2e6, parameters / 1e6


def _fully_connected(k: Kernel) -> tuple[float, ...]:
    flops = (2 * k.cin + 1) * k.cout
    return k.cin, k.cout, flops / 2e6, flops / 1e6


def _pool(k: Kernel) -> tuple[float, ...]:
    return k.h, k.cin, k.cout, k.kernel, k.stride


def _global_pool(k: Kernel) -> tuple[float, ...]:
    return 1, k.cin


def _map(k: Kernel) -> tuple[float, ...]:
    return k.h, k.cout if len(k.inputs) > 1 else k.inputs[0]


def _sum(k: Kernel) -> tuple[float, ...]:
    return k.h, k.inputs[0], k.inputs[-1]


def _concat(k: Kernel) -> tuple[float, ...]:
    """Four inputs at most; nn-Meter says 6 where there are more."""
    count = len(k.inputs)
    return k.h, 6 if count > 4 else count, *(*k.inputs, 0, 0, 0)[:4]


@dataclass(frozen=True, slots=True)
class Sampling:
    """One kernel of nn-Meter: its features, how many they are, and the sampled shapes.

    ``sides`` of the map, ``kernels`` and ``strides`` are single values, ``cin`` and ``cout`` ranges (low, high).
    """

    features: Callable[[Kernel], tuple[float, ...]]
    columns: int
    sides: tuple[int, ...]
    cin: tuple[int, int] = (3, CHANNELS)
    cout: tuple[int, int] = (3, CHANNELS)
    kernels: tuple[int, ...] = (1,)
    strides: tuple[int, ...] = (1,)


_SIDES = (1, 3, 7, 14, 28, 56, 112, 224)
_CONV_SIDES = (1, 3, 7, 8, 13, 14, 27, 28, 32, 56, 112, 224)
_POOLING = Sampling(_pool, 5, (14, 28, 56, 112, 224), (24, 1056), (24, 1056), (2, 3), (1, 2))
KERNELS: dict[str, Sampling] = {
    "conv-bn-relu": Sampling(_convolution, 7, _CONV_SIDES, (3, 2160), (4, 2048), (1, 3, 5, 7), (1, 2, 4)),
    "dwconv-bn-relu": Sampling(_depthwise, 7, _SIDES, (11, 1152), (11, 1152), (1, 3, 5, 7), (1, 2)),
    "fc": Sampling(_fully_connected, 4, (1,), (512, 25088), (1000, 4096)),
    "maxpool": _POOLING,
    "avgpool": _POOLING,
    "global-avgpool": Sampling(_global_pool, 2, (1, 3, 7)),
    "concat": Sampling(_concat, 6, (7, 14, 28, 56), cout=(3, 4 * CHANNELS)),
    **dict.fromkeys(("add", "addrelu"), Sampling(_sum, 3, _SIDES)),
    **dict.fromkeys(
        ("hswish", "bn", "relu", "bnrelu", "split", "channelshuffle", "se"), Sampling(_map, 2, _SIDES)
    ),
}


def nearest(name: str, kernel: Kernel) -> tuple[Kernel, float, str]:
    """The sampled shape that stands for a kernel, by what to multiply its price, and why; "" for itself.

    A forest is constant beyond its samples and a staircase between them, which a search would exploit. So a
    side, kernel or stride that was not sampled is priced as the next larger one that was, or the largest, and
    channels as the nearest, in proportion to the work.
    """
    sampled = KERNELS[name]
    side = _up(kernel.h, sampled.sides)
    taps, stride = _up(kernel.kernel, sampled.kernels), _up(kernel.stride, sampled.strides)
    inputs = tuple(_inside(channels, sampled.cin) for channels in kernel.inputs)
    cout = _inside(kernel.cout, sampled.cout)
    stand_in = replace(kernel, h=side, w=side, inputs=inputs, cout=cout, kernel=taps, stride=stride)
    if stand_in == kernel:
        return kernel, 1.0, ""
    factor = kernel.h * kernel.w / side**2 * (kernel.kernel / taps * stride / kernel.stride) ** 2
    factor *= kernel.cin / sum(inputs)
    if name in ("conv-bn-relu", "fc"):
        factor *= kernel.cout / cout
    changed = [
        f"{dimension} {asked} as {used}"
        for dimension, asked, used in (
            ("height", kernel.h, side),
            ("width", kernel.w, side),
            ("input channels", kernel.cin, sum(inputs)),
            ("output channels", kernel.cout, cout),
            ("kernel", kernel.kernel, taps),
            ("stride", kernel.stride, stride),
        )
        if asked != used
    ]
    return stand_in, factor, f"{name} never sampled there: {', '.join(changed)}, in proportion to the work"


def _up(value: int, among: Sequence[int]) -> int:
    """The smallest of some ascending values that is not below ``value``, else the largest."""
    return among[min(bisect_left(among, value), len(among) - 1)]


def _inside(value: int, bounds: tuple[int, int]) -> int:
    return min(max(value, bounds[0]), bounds[1])
