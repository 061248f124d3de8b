"""A kind of experiment for workers: its units measure, fail, die, go on counting, or do not listen.

Every process that takes part writes down what it does in ``diary``, a line at a time.
"""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure
from pytest import MonkeyPatch

from quadnas.compare.experiment import KINDS, Arm, ArmName, Bench, Experiment, Record, Unit, Work
from quadnas.compare.figures import bars, value_panel
from quadnas.compare.table import Column, Table
from quadnas.run.events import Notice
from quadnas.run.folder import RunFolder
from quadnas.run.session import Session

STEPS = 100
STEP_SECONDS = 0.1

SETTINGS = """\
format: quadnas-experiment/1
kind: acting
title: Acting
diary: {diary}
arms: {{{arms}}}
"""
KIND = """\
from quadnas.compare.experiment import KINDS
from tests.compare.acting import Acting

KINDS.register("acting")(Acting)
"""


def install(folder: Path, monkeypatch: MonkeyPatch) -> None:
    """Make the kind known to this process and to those that it starts."""
    (folder / "acting_kind.py").write_text(KIND)
    about = folder / "acting_kind-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acting-kind\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[quadnas.experiments]\nacting = acting_kind\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(__file__).parents[2])]))
    assert "xor" in set(KINDS)  # loads the installed kinds before this one stands among them
    monkeypatch.setitem(KINDS._items, "acting", Acting)


def experiment(folder: Path, **acts: str) -> Path:
    """An experiment file whose arms act as told."""
    arms = ", ".join(f"{name}: {{act: {act}}}" for name, act in acts.items())
    file = folder / "acting.yaml"
    file.write_text(SETTINGS.format(diary=folder / "diary", arms=arms))
    return file


def diary(folder: Path) -> list[list[str]]:
    """What was written down: process, unit, what."""
    file = folder / "diary"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def steps(folder: Path) -> list[int]:
    """The steps that were counted, as they were written down."""
    return [int(what) for _, _, what in diary(folder) if what != "begins"]


class ActingArm(Arm):
    act: Literal["measure", "raise", "die", "count", "deaf"]


class Acting(Experiment):
    arms: Mapping[ArmName, ActingArm]
    diary: str

    def prepare(self) -> "ActingWork":
        return ActingWork(self)

    def columns(self) -> tuple[Column, ...]:
        return (Column("value", "value", 1), Column("shared", "shared", 0))

    def draw(self, table: Table, records: Mapping[str, Sequence[Record]]) -> Figure:
        return bars(table.rows, [value_panel(table, "value")])


class ActingWork(Work):
    def __init__(self, experiment: Acting) -> None:
        self.experiment = experiment
        self.inputs: Mapping[str, object] = {f"word of {arm}": len(arm) for arm in experiment.arms}

    def note(self, unit: Unit, what: object) -> None:
        with Path(self.experiment.diary).open("a") as file:
            file.write(f"{os.getpid()} {unit} {what}\n")

    def measure(self, unit: Unit, bench: Bench) -> Record:
        self.note(unit, "begins")
        match self.experiment.arms[unit.arm].act:
            case "raise":
                raise RuntimeError("CUDA out of memory\n  tried to allocate")
            case "die":
                print("the last words", flush=True)
                os.kill(os.getpid(), signal.SIGSEGV)
            case "deaf":
                while True:
                    time.sleep(1)
            case "count":
                self.count(unit, bench)
        return {"value": float(len(unit.arm)), "shared": int(bench.shared)}

    def count(self, unit: Unit, bench: Bench) -> None:
        """A run of its own that commits every step."""
        path = bench.path(unit)
        if (path / "run.json").exists():
            folder = RunFolder.open(path)
        else:
            path.parent.mkdir(exist_ok=True)
            folder = RunFolder.create(path, {})
        with folder:
            session = Session(folder, bench.observe, bench.stop, bench.clock, 0.0, {})
            checkpoint = session.resume()
            for step in range(checkpoint.step if checkpoint else 0, STEPS):
                time.sleep(STEP_SECONDS)
                session.emit(Notice(f"step {step}"))
                self.note(unit, step)
                session.step_done(step + 1, lambda: ({}, {}))


def events(run: Path, unit: str) -> list[Any]:
    """The journal of a unit that counts."""
    return [event["text"] for event in RunFolder.open(run / "arms" / unit).journal.read()]
