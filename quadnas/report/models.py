"""How large models are: parameters, multiply-accumulates and input, of one of them or of all that have a name."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from quadnas.network import build, operators_of
from quadnas.space.layer import Layer
from quadnas.space.model_spec import ModelSpec


def list_models(specs: Iterable[ModelSpec]) -> tuple[list[dict[str, Any]], str]:
    """One row per model for JSON, and the same as a table; raises ConfigError if a model cannot be built."""
    rows: list[dict[str, Any]] = [
        {
            "name": spec.name,
            "params": parameters(spec.layers),
            "macs": sum(operator.kernel.macs for operator in operators_of(spec.layers, spec.input.size)),
            "input": spec.input.size,
        }
        for spec in specs
    ]
    lines = [f"{'model':<28}{'parameters':>14}{'MACs':>18}{'input':>11}"]
    for row in rows:
        side = row["input"]
        lines.append(f"{row['name']:<28}{row['params']:>14,}{row['macs']:>18,}{f'{side}x{side}':>11}")
    return rows, "\n".join(lines)


class _WithoutNormal(TorchFunctionMode):
    """Skips ``normal_``, which on the meta device does nothing and imports torch's compiler, half of the time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is torch.Tensor.normal_ else func(*args, **(kwargs or {}))


def parameters(layers: Sequence[Layer]) -> int:
    """The trainable parameters of a network; its modules are built without memory, equal layers once."""
    counts: dict[str, int] = {}
    keys = [layer.model_dump_json() for layer in layers]
    for key, layer in zip(keys, layers, strict=True):
        if key not in counts:
            with torch.device("meta"), _WithoutNormal():
                counts[key] = sum(parameter.numel() for parameter in build(layer).parameters())
    return sum(counts[key] for key in keys)
