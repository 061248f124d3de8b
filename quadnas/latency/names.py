"""Fused operator names: what nn-Meter, QuadraNAS and users call the same thing."""

from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache

from quadnas.latency.kernels import Kernel

_ALIASES = {
    "maxpool": "max-pool",
    "avgpool": "avg-pool",
    "globalpool": "global-pool",
    "gap": "global-pool",
    "globalavgpool": "global-pool",
    "channelshuffle": "channel_shuffle",
    "hardswish": "hswish",
    "hardsigmoid": "hsigmoid",
    "silu": "swish",
    "dense": "fc",
    "linear": "fc",
    "relu6": "relu",
    "batchnorm": "bn",
    "depthwiseconv": "dwconv",
    "bnrelu": "bn relu",
    "addrelu": "add relu",
}
_TWO_WORDS = ("max-pool", "avg-pool", "global-pool", "global-avgpool", "global-avg-pool")
_SQUEEZE = "se"


@lru_cache(maxsize=4096)
def words(op: str) -> tuple[str, ...]:
    """The single operators of a fused name, in one spelling: ``Conv-BN-ReLU6`` -> conv, bn, relu."""
    text = op.lower()
    for pair in _TWO_WORDS:
        text = text.replace(pair, pair.replace("-", ""))
    found = (part.replace("_", "") for part in text.split("-"))
    return tuple(word for part in found for word in _ALIASES.get(part, part).split(" "))


def parts(kernel: Kernel, folded: Collection[str]) -> list[Kernel]:
    """The single operators that cost time in a fused kernel, with their shapes.

    An operator of ``folded`` is free behind another one (batch normalisation only behind a convolution or
    ``fc``, into whose weights it folds); any other works on the output of the first. Squeeze-and-excitation
    (``cout`` = squeezed width) is a pool over the map, two ``fc``, a hard sigmoid and a product.
    """
    first, *rest = words(kernel.op)
    foldable = set(folded) if first in ("conv", "dwconv", "fc") else set(folded) - {"bn"}
    behind = [word for word in rest if word not in foldable]
    if first == _SQUEEZE:
        found = _squeeze_parts(kernel)
        out = found[0]
    else:
        k = kernel
        # Spelled out: dataclasses.replace takes a third of the time of pricing.
        found = [Kernel(first, k.h, k.w, k.inputs, k.cout, k.kernel, k.stride, k.batch)]
        out = Kernel(first, -(-k.h // k.stride), -(-k.w // k.stride), (k.cout,), k.cout, batch=k.batch)
    return found + [replace(out, op=word) for word in behind]


def _squeeze_parts(kernel: Kernel) -> list[Kernel]:
    channels, squeezed = kernel.cin, kernel.cout
    whole = Kernel("mul", kernel.h, kernel.w, (channels, channels), channels, batch=kernel.batch)
    vector = Kernel("", 1, 1, (channels,), channels, batch=kernel.batch)
    return [
        replace(whole, op="avg-pool", inputs=(channels,)),
        replace(vector, op="fc", cout=squeezed),
        replace(vector, op="fc", inputs=(squeezed,)),
        replace(vector, op="hsigmoid"),
        whole,
    ]
