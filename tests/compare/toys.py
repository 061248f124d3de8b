"""An experiment of whose results the tests know everything, and that can fail, stop or die at a chosen unit."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from quadnas.compare.engine import Outcome, run_experiment
from quadnas.compare.experiment import Bench, Experiment, Record, Unit, Work
from quadnas.compare.figures import bars, value_panel
from quadnas.compare.result import write_outcome
from quadnas.compare.table import Column, Table
from quadnas.config import validated
from quadnas.run.events import Event
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag

ARMS = ("alpha", "beta", "gamma")


class Toy(Experiment):
    """Every arm, in two parts, measures the length of its name times a factor."""

    factor: float = 1.0

    def prepare(self) -> "ToyWork":
        return ToyWork(self)

    def units(self) -> tuple[Unit, ...]:
        return tuple(Unit(arm, part) for part in ("one", "two") for arm in self.arms)

    def columns(self) -> tuple[Column, ...]:
        return (Column("length", "length", 1),)

    def row(self, arm: str, records: Sequence[Record]) -> dict[str, Any]:
        return {"length": sum(record["length"] for record in records)}

    def draw(self, table: Table, records: Mapping[str, Sequence[Record]]) -> Figure:
        return bars(table.rows, [value_panel(table, "length")])


class ToyWork(Work):
    """``before`` is called with every unit and may raise or die; ``measured`` lists what was measured."""

    def __init__(self, experiment: Toy, before: Callable[[Unit], None] = lambda unit: None) -> None:
        self.factor = experiment.factor
        self.before = before
        self.inputs: Mapping[str, object] = {"seed": 7}
        self.measured: list[str] = []

    def measure(self, unit: Unit, bench: Bench) -> Record:
        self.before(unit)
        self.measured.append(str(unit))
        return {"length": self.factor * (len(unit.arm) + 0.1)}


def toy(**changes: Any) -> Toy:
    """The toy, whose second arm has a published value."""
    arms: dict[str, Any] = {name: {} for name in ARMS}
    arms["beta"] = {"paper": {"length": 9.0}, "against": {"Alpha": "alpha"}}
    data = {"format": "quadnas-experiment/1", "kind": "toy", "title": "Toy", "arms": arms, **changes}
    return validated(data, Toy, "toy.yaml")


def run(
    path: Path,
    experiment: Toy | None = None,
    before: Callable[[Unit], None] = lambda unit: None,
    stop: StopFlag | None = None,
    observe: Callable[[Event], None] = lambda event: None,
) -> tuple[Outcome, ToyWork]:
    """Run the toy in a new folder, or go on with it in one that exists, and write what it found."""
    experiment = experiment or toy()
    work = ToyWork(experiment, before)
    settings = experiment.model_dump(mode="json")
    folder = RunFolder.open(path) if path.exists() else RunFolder.create(path, settings)
    with folder:
        outcome = run_experiment(experiment, work, folder, observe, stop or StopFlag())
        write_outcome(experiment, outcome, folder, "a machine")
    return outcome, work
