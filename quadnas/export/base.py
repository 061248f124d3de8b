"""The contract of an export target, and the registry through which it is found by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quadnas.errors import ConfigError
from quadnas.network import Network, with_all_arguments
from quadnas.registry import Registry
from quadnas.resources import is_name
from quadnas.run.atomic import commit_bytes
from quadnas.run.folder import RunFolder
from quadnas.search.front import MODEL, RETRAINED, WEIGHTS
from quadnas.space.model_family import find_model, find_models
from quadnas.space.model_spec import ModelSpec, load_model_spec
from quadnas.space.net_config import NET_CONFIG_SUFFIXES
from quadnas.training.weights import load_weights


@dataclass(frozen=True, slots=True)
class Target:
    """A file format: the ``suffix`` of its main file, and how a network is written.

    ``write`` puts a network (its spec, itself with weights, notes on them) at or beside a path and returns the
    files. It compares what it is about to write with the network before a file appears. ``describe`` gives the
    text of a file that can do without weights.
    """

    suffix: str
    write: Callable[[ModelSpec, Network, dict[str, str], Path], list[Path]]
    describe: Callable[[ModelSpec], str] | None = None


TARGETS: Registry[Target] = Registry("export target", "quadnas.export.targets", "quadnas.export")

_Job = tuple[ModelSpec, Path, Path]
"""A spec, the file with its weights, and where to write."""


def export_model(source: Path, out: Path | None, name: str) -> list[Path]:
    """Export the network of a run, or of a model spec with its weights beside it, to the target ``name``.

    A search exports its inherited weights at ``out`` (default: model and the target's suffix), retrained ones
    beside it. Nothing is written unless all weights are intact. A model by name, or a net.config, has no weights:
    its text alone is written. Raises ConfigError if there is no network yet or ``out`` is no place for the
    file, DataError, MachineError if an optional package is missing.
    """
    target = TARGETS[name]
    out = Path(f"model{target.suffix}") if out is None else out
    if out.suffix != target.suffix or out.is_dir() or not out.parent.is_dir():
        raise ConfigError(
            f"--out is the file to write, a name ending in {target.suffix} in an existing folder, "
            f"not {str(out)!r}"
        )
    if _is_design(source):
        return [_export_design(find_model(source), out, name)]
    loaded = []
    for spec, weights, path in (
        _spec_jobs(source, out)
        if source.suffix in (".yaml", *NET_CONFIG_SUFFIXES)
        else _run_jobs(source, out)
    ):
        network = Network(spec.layers)
        loaded.append((spec, network, load_weights(network, weights), path))
    return [
        file for spec, network, notes, path in loaded for file in target.write(spec, network, notes, path)
    ]


def _is_design(source: Path) -> bool:
    """Whether it has no weights, and needs none: a model by name, or a net.config alone.

    Raises ConfigError for a name that nothing has.
    """
    if source.exists() or not is_name(str(source)):
        return source.suffix in NET_CONFIG_SUFFIXES and not source.with_suffix(".safetensors").is_file()
    try:
        find_models(str(source))
    except ConfigError as error:
        raise ConfigError(f"{source} is not a run folder such as runs/NAME; {error}") from None
    return True


def _export_design(spec: ModelSpec, out: Path, name: str) -> Path:
    describe = TARGETS[name].describe
    if describe is None:
        raise ConfigError(
            f"{spec.name} has no weights to export to {name}: train it, as in quadnas train {spec.name} --data "
            "digits --out run, and export run/model.yaml"
        )
    layers = tuple(with_all_arguments(layer) for layer in spec.layers)
    commit_bytes(out, describe(spec.model_copy(update={"layers": layers})).encode())
    return out


def _spec_jobs(source: Path, out: Path) -> list[_Job]:
    spec, weights = find_model(source), source.with_suffix(".safetensors")
    if not weights.is_file():
        raise ConfigError(f"{source} has no weights: {weights} is missing; quadnas export RUN writes both")
    return [(spec, weights, out)]


def _run_jobs(run: Path, out: Path) -> list[_Job]:
    command = RunFolder.open(run).command
    if command == "compare":
        raise ConfigError(
            f"{run} is an experiment, which has no one network; export an arm of it, {run}/arms/ARM"
        )
    if not (run / WEIGHTS).is_file():
        raise ConfigError(
            f"{run} holds no finished network yet; go on with it by quadnas {command} --resume {run}"
        )
    spec = load_model_spec(run / MODEL)
    both = ((WEIGHTS, out), (RETRAINED, out.with_stem(f"{out.stem}-retrained")))
    return [(spec, run / weights, path) for weights, path in both if (run / weights).is_file()]
