"""Running an experiment unit by unit: every finished one is committed, a failing one takes no other with it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quadnas.compare.executor import EXECUTORS, HERE, Executor, Options, reason
from quadnas.compare.experiment import Bench, Experiment, Record, Unit, Work
from quadnas.compare.handover import Left, answer_file, take_over
from quadnas.compare.table import Table
from quadnas.errors import ConfigError, Interrupted, QuadnasError
from quadnas.run.checkpoint import Checkpoint
from quadnas.run.events import Notice, Observer
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.run.session import Session, Snapshot, digests


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of an experiment found, the errors of the units that failed, and the machines they ran on."""

    records: Mapping[Unit, Record]
    failures: Mapping[Unit, QuadnasError]
    table: Table
    machines: Sequence[str]


def run_experiment(
    experiment: Experiment,
    work: Work,
    folder: RunFolder,
    observe: Observer,
    stop: StopFlag,
    executor: Executor | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Measure, or go on measuring, the units of the experiment whose settings lie in the locked ``folder``.

    The outcome is the same wherever the ``executor`` runs them (by default in this process) and in whatever order
    they finish. Failed units are tried again when the run is resumed. Raises Interrupted when asked to stop,
    ConfigError if the inputs are no longer those that the run began with.
    """
    executor = executor or EXECUTORS[HERE](None, Options())
    session = Session(folder, observe, stop, clock, 0.0, work.inputs)
    kept = _Kept(session, session.resume())
    failures: dict[Unit, QuadnasError] = {}
    units = experiment.units()
    _await_former_workers(session)
    kept.adopt(units, digests(work.inputs))

    def waiting() -> Iterator[Unit]:
        for number, unit in enumerate(units, 1):
            if str(unit) not in kept.records:
                observe(Notice(f"{unit} ({number} of {len(units)})"))
                yield unit

    with closing(executor.measure(waiting(), work, Bench(folder, observe, stop, clock))) as answers:
        try:
            for answer in answers:
                if isinstance(answer.found, QuadnasError):
                    failures[answer.unit] = answer.found
                    session.emit(Notice(f"{answer.unit} failed: {reason(answer.found)}"))
                else:
                    kept.commit(answer.unit, answer.found, answer.machine)
        except Interrupted as interruption:
            raise _of_this_run(interruption, folder) from None
    session.batch_evaluated()
    found = {unit: kept.records[str(unit)] for unit in units if str(unit) in kept.records}
    failed = {unit: failures[unit] for unit in units if unit in failures}
    table = experiment.table(found, {unit: reason(error) for unit, error in failed.items()})
    return Outcome(found, failed, table, sorted(kept.machines))


class _Kept:
    """The records so far, by the names of their units, and the machines they come from; all are committed."""

    def __init__(self, session: Session, checkpoint: Checkpoint | None) -> None:
        state = checkpoint.state if checkpoint else {}
        self.records: dict[str, Record] = dict(state.get("records", {}))
        self.machines: list[str] = list(state.get("machines", ()))
        self._session = session

    def commit(self, unit: Unit, record: Record, machine: str) -> None:
        """Add a record."""
        self.records[str(unit)] = record
        if machine not in self.machines:
            self.machines.append(machine)
        self._session.commit(len(self.records), self._snapshot)

    def adopt(self, units: Sequence[Unit], inputs: Mapping[str, str]) -> None:
        """Add what workers finished after the main process was killed, from the same inputs."""
        for unit in units:
            if str(unit) not in self.records:
                left = Left.read(answer_file(self._session.folder.path, str(unit)))
                if left and left.record is not None and left.inputs == inputs:
                    self.commit(unit, left.record, left.machine)

    def _snapshot(self) -> Snapshot:
        return {}, {"records": self.records, "machines": self.machines}


def _await_former_workers(session: Session) -> None:
    """Let workers that a killed main process left see that they are to stop, and wait until they have."""
    told: set[Path] = set()

    def waiting(lock: Path) -> None:
        if lock not in told:
            told.add(lock)
            session.emit(Notice(f"waiting for the worker of {lock.stem}, left by a process that was killed"))
        session.batch_evaluated()

    take_over(session.folder.path, waiting)


def raise_failures(outcome: Outcome, folder: RunFolder) -> None:
    """Raise the first failure's kind of error, saying how many units failed; nothing if none did."""
    if outcome.failures:
        unit, first = next(iter(outcome.failures.items()))
        total = len(outcome.failures) + len(outcome.records)
        raise type(first)(
            f"{len(outcome.failures)} of {total} units failed, first {unit}: {reason(first)}; the others are in "
            f"the table, and --resume {folder.path} tries the failed ones again"
        )


def require_same(experiment: Experiment, folder: RunFolder, source: str) -> None:
    """Raise ConfigError if the folder's run was started with another experiment than the one of ``source``."""
    now: dict[str, Any] = experiment.model_dump(mode="json")
    if changed := sorted(
        key for key in now.keys() | folder.settings.keys() if now.get(key) != folder.settings.get(key)
    ):
        raise ConfigError(
            f"{folder.path} was started with other settings than {source} has now ({', '.join(changed)}): old "
            "results are not mixed with new ones; give no --resume to start a new run, or restore the file"
        )


def _of_this_run(interruption: Interrupted, folder: RunFolder) -> Interrupted:
    """The same request to stop, naming this run instead of the unit's own folder."""
    signal_number = interruption.exit_code - 128
    return Interrupted(f"stopped; everything is committed: go on with --resume {folder.path}", signal_number)
