"""How large models are: parameters, multiply-accumulates and input, of one of them or of all that have a name."""

from collections.abc import Iterable
from typing import Any

from quadnas.sizes import macs, parameters
from quadnas.space.model_spec import ModelSpec


def list_models(specs: Iterable[ModelSpec]) -> tuple[list[dict[str, Any]], str]:
    """One row per model for JSON, and the same as a table; raises ConfigError if a model cannot be built."""
    rows: list[dict[str, Any]] = [
        {
            "name": spec.name,
            "params": parameters(spec.layers),
            "macs": macs(spec.layers, spec.input.size),
            "input": spec.input.size,
        }
        for spec in specs
    ]
    lines = [f"{'model':<28}{'parameters':>14}{'MACs':>18}{'input':>11}"]
    for row in rows:
        side = row["input"]
        lines.append(f"{row['name']:<28}{row['params']:>14,}{row['macs']:>18,}{f'{side}x{side}':>11}")
    return rows, "\n".join(lines)
