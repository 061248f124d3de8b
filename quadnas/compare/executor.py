"""The contract of an executor: where the units of an experiment are measured."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from quadnas.compare.experiment import Bench, Experiment, Record, Unit, Work
from quadnas.config import Settings, parse_yaml, validated
from quadnas.errors import ConfigError, Interrupted, MachineError, QuadnasError
from quadnas.registry import Registry

HERE, PROCESSES = "here", "processes"


class Options(Settings):
    """What an executor is told beside the number of workers. Default: nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a unit: its record, or the error that failed it; ``machine``: where, in words."""

    unit: Unit
    found: Record | QuadnasError
    machine: str


class Executor(ABC):
    """One place where units run; a subclass registers itself by name.

    An executor is one file in ``quadnas/compare/executors``. ``workers``: how many units at once, None for as many
    as there are. ``concurrent``: whether units may disturb each other or run on other machines.
    """

    options_type: ClassVar[type[Options]] = Options
    concurrent: ClassVar[bool] = True

    def __init__(self, workers: int | None, options: Options) -> None:
        """Raises ConfigError or MachineError if there is no such place."""
        self.workers = workers
        self.options = options

    @abstractmethod
    def measure(self, units: Iterable[Unit], work: Work, bench: Bench) -> Generator[Answer, None, None]:
        """Measure units and yield what came of each, in any order.

        A unit is taken from ``units`` when there is room for it. Asked to stop, no further one is taken, those
        that run are told, and the iterator ends within 10 s, or raises Interrupted; no process is left when it
        ends or is closed.
        """


EXECUTORS: Registry[type[Executor]] = Registry("cluster", "quadnas.compare.executors", "quadnas.executors")


def executor_for(workers: int | None, cluster: str | None, options: Sequence[str]) -> Executor:
    """The executor that the command line asks for; ``options`` are texts such as ``hours=4``.

    Raises ConfigError naming the option, MachineError for what is not installed.
    """
    if options and cluster is None:
        raise ConfigError(f"--cluster-option {options[0]} belongs to a --cluster, and none is given")
    kind = EXECUTORS[cluster or (PROCESSES if (workers or 1) > 1 else HERE)]
    told: dict[str, Any] = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or key in told:
            raise ConfigError(f"--cluster-option takes KEY=VALUE, each key once, not {option!r}")
        told[key] = parse_yaml(value, f"--cluster-option {option}")
    return kind(workers, validated(told, kind.options_type, f"--cluster-option of {cluster}"))


def require_undisturbed(experiment: Experiment, executor: Executor) -> None:
    """Raise ConfigError if units side by side would falsify what the experiment measures."""
    if experiment.undisturbed and executor.concurrent:
        raise ConfigError(
            f"an experiment of the kind {experiment.kind} measures what units side by side would falsify: run it "
            "in this process, without --workers and --cluster (on a cluster: as one job)"
        )


def attempt(measure: Callable[[], Record]) -> Record | QuadnasError:
    """The record as a resumed run will read it, or the error that failed the unit; raises Interrupted alone."""
    try:
        stored: Record = json.loads(json.dumps(measure(), allow_nan=False))
    except Interrupted:
        raise
    except QuadnasError as error:
        return error
    except Exception as error:  # an arm's fault, whatever it is, is no reason to lose the others
        return MachineError(reason(error))
    return stored


def reason(error: Exception) -> str:
    """An error in one line: a user's own message, anything else with its type in front."""
    text = " ".join(str(error).split())
    return text if isinstance(error, QuadnasError) else f"{type(error).__name__}: {text[:300]}"
