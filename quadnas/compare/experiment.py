"""The contract of an experiment: a settings file with arms, measured in units that are committed one by one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from matplotlib.figure import Figure
from pydantic import AfterValidator, Field

from quadnas.compare.table import Column, Row, Table, Value, ratios
from quadnas.config import Settings, read_mapping, validated
from quadnas.errors import ConfigError, QuadnasError
from quadnas.registry import Registry, did_you_mean
from quadnas.run.events import Observer
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag

ARMS = "arms"
"""The folder of the units that are themselves runs."""

Record = dict[str, Any]
"""What one unit found, as JSON."""


ArmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)]
"""A plain name, for it also names a folder."""

T = TypeVar("T")


def distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    """The values; raises ValueError if one stands twice, which would be measured once and counted as two."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value} stands twice; give each once")
    return values


Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(distinct)]
"""A repetition for each."""


class Arm(Settings):
    """One row of the table.

    ``paper``: the published values under the keys of the table's columns; ``against``: title -> the arm that this
    one's main value is divided by.
    """

    paper: dict[str, float] = Field(default_factory=dict)
    against: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest part of an experiment that is measured and committed: an arm, or one seed or round of it."""

    arm: str
    part: str = ""

    def __str__(self) -> str:
        """Its name in messages, results and folders."""
        return f"{self.arm}-{self.part}" if self.part else self.arm


@dataclass(frozen=True, slots=True)
class Bench:
    """What a unit is measured with: the run's folder, observers, the request to stop, a clock in seconds.

    ``shared``: other units may run beside it, so that the times it takes mean nothing.
    """

    folder: RunFolder
    observe: Observer
    stop: StopFlag
    clock: Callable[[], float]
    shared: bool = False

    def path(self, unit: Unit) -> Path:
        """The run folder of a unit that is itself a run, which may not be there yet."""
        return self.folder.path / ARMS / str(unit)


class Work(ABC):
    """An experiment with everything loaded and checked that its units need.

    ``inputs`` are the frozen values that the settings only name: a run goes on with nothing else. One that is
    not the same for all arms has a name for each, for a worker prepares its unit's arm alone.
    """

    inputs: Mapping[str, object]

    @abstractmethod
    def measure(self, unit: Unit, bench: Bench) -> Record:
        """Measure one unit; whatever it raises, except Interrupted, fails this unit alone."""


class Experiment(Settings):
    """One kind of experiment; a subclass declares its settings as fields and registers itself by name.

    A kind is one file in ``quadnas/compare/kinds``. It narrows ``arms`` to its own subclass of ``Arm``.
    ``about`` says what is measured and what was chosen; ``source`` where the published values stand.
    ``undisturbed``: its units measure what others beside them would falsify.
    """

    undisturbed: ClassVar[bool] = False
    format: Literal["quadnas-experiment/1"]
    kind: str
    title: str
    about: str = ""
    source: str = ""
    arms: Mapping[ArmName, Arm]

    @abstractmethod
    def prepare(self) -> Work:
        """Load and check everything before anything runs; raises ConfigError, DataError, MachineError."""

    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """The columns of the table; the first is the main one, which ``against`` divides."""

    @abstractmethod
    def draw(self, table: Table, records: Mapping[str, Sequence[Record]]) -> Figure:
        """The picture, the published values marked beside the measured ones."""

    def units(self) -> tuple[Unit, ...]:
        """All units in the order in which they are measured. Default: one for every arm."""
        return tuple(Unit(arm) for arm in self.arms)

    def row(self, arm: str, records: Sequence[Record]) -> dict[str, Value]:
        """The values of an arm from the records of its units. Default: those of its only unit."""
        return dict(records[0])

    def notes(self, records: Mapping[str, Sequence[Record]]) -> tuple[str, ...]:
        """Sentences to stand below the table. Default: none."""
        return ()

    def table(self, records: Mapping[Unit, Record], failures: Mapping[Unit, str]) -> Table:
        """The table of what was measured so far."""
        by_arm = self.by_arm(records)
        rows = {arm: self.row(arm, found) for arm, found in by_arm.items() if found}
        main = self.columns()[0].key
        ours = {arm: row.get(main) for arm, row in rows.items()}
        theirs: dict[str, Value] = {name: arm.paper.get(main) for name, arm in self.arms.items()}
        reasons = {unit.arm: f"{unit}: {text}" for unit, text in failures.items()}
        return Table(
            self.columns(),
            tuple(
                Row(
                    name,
                    rows.get(name, {}),
                    arm.paper,
                    ratios(ours, arm.against, name),
                    ratios(theirs, arm.against, name),
                    reasons.get(name, ""),
                )
                for name, arm in self.arms.items()
            ),
            self.notes({arm: found for arm, found in by_arm.items() if found}),
        )

    def for_each_arm(self, check: Callable[[str], T]) -> dict[str, T]:
        """What ``check`` returns for every arm; raises the first error's kind with the errors of all arms."""
        found: dict[str, T] = {}
        errors: dict[str, QuadnasError] = {}
        for arm in self.arms:
            try:
                found[arm] = check(arm)
            except QuadnasError as error:
                errors[arm] = error
        if errors:
            raise type(next(iter(errors.values())))(_listed(errors))
        return found

    def narrowed(self, arm: str) -> Self:
        """The same experiment with this arm alone."""
        return self.model_copy(update={"arms": {arm: self.arms[arm]}})

    def by_arm(self, records: Mapping[Unit, Record]) -> dict[str, list[Record]]:
        """The records of every arm, in the order of its units."""
        return {arm: [r for unit, r in records.items() if unit.arm == arm] for arm in self.arms}

    def check_names(self, source: str) -> None:
        """Raise ConfigError for a published value without a column, and for a rival that is no arm."""
        keys = [column.key for column in self.columns()]
        for name, arm in self.arms.items():
            for key in arm.paper:
                if key not in keys:
                    raise ConfigError(
                        f"{source}: arms.{name}.paper has no column {key!r}; {did_you_mean(key, keys)}"
                    )
            for other in arm.against.values():
                if other not in self.arms:
                    raise ConfigError(
                        f"{source}: arms.{name}.against: no arm {other!r}; {did_you_mean(other, self.arms)}"
                    )


def _listed(errors: Mapping[str, QuadnasError]) -> str:
    """Every error once, behind the arms that it befell where it does not name its arm itself."""
    befell: dict[str, list[str]] = {}
    for arm, error in errors.items():
        befell.setdefault(str(error), []).append(f"arms.{arm}")
    return "; ".join(
        text if text.startswith(arms[0]) else f"{', '.join(arms)}: {text}" for text, arms in befell.items()
    )


KINDS: Registry[type[Experiment]] = Registry(
    "kind of experiment", "quadnas.compare.kinds", "quadnas.experiments"
)


def read_experiment(path: Path) -> Experiment:
    """The experiment that a settings file describes; raises ConfigError naming file and key."""
    return experiment_from(read_mapping(path), str(path))


def experiment_from(data: Mapping[str, Any], source: str) -> Experiment:
    """The experiment that plain data describe; raises ConfigError naming ``source`` and the key."""
    kind = data.get("kind")
    if not isinstance(kind, str):
        raise ConfigError(f"{source}: the key 'kind' is missing; allowed: {', '.join(KINDS)}")
    experiment = validated(dict(data), KINDS[kind], source)
    if not experiment.arms:
        raise ConfigError(f"{source}: no arms; list at least one under 'arms'")
    experiment.check_names(source)
    return experiment
