"""The contract of an export target, and the registry through which it is found by name."""

from collections.abc import Callable
from pathlib import Path

from quadnas.errors import ConfigError
from quadnas.network import Network
from quadnas.registry import Registry
from quadnas.run.folder import RunFolder
from quadnas.search.loop import INHERITED, MODEL, RETRAINED
from quadnas.space.model_spec import ModelSpec, load_model_spec
from quadnas.training.weights import load_weights

Target = Callable[[ModelSpec, Network, dict[str, str], Path], list[Path]]
"""Writes a network (its spec, itself with weights, the weights' notes) at or beside a path; returns the files.

A target compares what it is about to write with the network before a file appears.
"""

TARGETS: Registry[Target] = Registry("export target", "quadnas.export.targets", "quadnas.export")


def export_run(run: Path, out: Path, target: str) -> list[Path]:
    """Export the network that a search found: with inherited weights at ``out``, retrained ones beside it.

    Nothing is written unless all weights are intact. Raises ConfigError if the search has not got so far or
    ``out`` is no place for a model spec, DataError.
    """
    write = TARGETS[target]
    RunFolder.open(run)
    if out.suffix != ".yaml" or out.is_dir() or not out.parent.is_dir():
        raise ConfigError(
            f"--out is the model spec to write, a name ending in .yaml in an existing folder, not {str(out)!r}"
        )
    if not (run / INHERITED).is_file():
        raise ConfigError(
            f"{run} holds no derived network yet; finish the search with quadnas search --resume {run}"
        )
    spec = load_model_spec(run / MODEL)
    loaded = []
    for weights, path in ((INHERITED, out), (RETRAINED, out.with_stem(f"{out.stem}-retrained"))):
        if (run / weights).is_file():
            network = Network(spec.layers)
            loaded.append((network, load_weights(network, run / weights), path))
    return [file for network, notes, path in loaded for file in write(spec, network, notes, path)]
