"""How large a network is, whatever runs it: parameters, multiply-accumulates, bytes of weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from quadnas.blocks.base import block_of
from quadnas.network import build, operators_of
from quadnas.space.layer import Layer

FP32_BYTES = 4


def parameters(layers: Sequence[Layer]) -> int:
    """The trainable parameters of a network; its modules are built without memory, equal layers once."""
    return sum(_each(layers, lambda layer: _numbers(build(layer))))


def macs(layers: Sequence[Layer], input_size: int) -> int:
    """Multiply-accumulates for one image of side ``input_size``."""
    return sum(operator.kernel.macs for operator in operators_of(layers, input_size))


def weight_bytes(layers: Sequence[Layer]) -> int:
    """Bytes of the weights in fp32 as deployed: normalisation and layer scale are folded into neighbours."""
    return FP32_BYTES * sum(
        _each(layers, lambda layer: _numbers(block_of(layer)[0].deployed(build(layer).eval())))
    )


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _each(layers: Sequence[Layer], count: Callable[[Layer], int]) -> Iterator[int]:
    counts: dict[str, int] = {}
    for layer in layers:
        key = layer.model_dump_json()
        if key not in counts:
            with _without_memory():
                counts[key] = count(layer)
        yield counts[key]


@contextmanager
def _without_memory() -> Iterator[None]:
    with torch.device("meta"), _WithoutNormal():
        yield


class _WithoutNormal(TorchFunctionMode):
    """Skips ``normal_``, which on the meta device does nothing and imports torch's compiler, half of the time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is torch.Tensor.normal_ else func(*args, **(kwargs or {}))
