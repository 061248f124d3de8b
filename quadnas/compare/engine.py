"""Running an experiment unit by unit: every finished one is committed, a failing one takes no other with it."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from quadnas.compare.experiment import Bench, Experiment, Record, Unit, Work
from quadnas.compare.table import Table
from quadnas.errors import ConfigError, Interrupted, MachineError, QuadnasError
from quadnas.run.events import Notice, Observer
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.run.session import Session, Snapshot


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of an experiment found, and the errors of the units that failed."""

    records: Mapping[Unit, Record]
    failures: Mapping[Unit, Exception]
    table: Table


def run_experiment(
    experiment: Experiment,
    work: Work,
    folder: RunFolder,
    observe: Observer,
    stop: StopFlag,
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Measure, or go on measuring, the units of the experiment whose settings lie in the locked ``folder``.

    Failed units are tried again when the run is resumed. Raises Interrupted when asked to stop, ConfigError if
    the inputs are no longer those that the run began with.
    """
    session = Session(folder, observe, stop, clock, 0.0, work.inputs)
    checkpoint = session.resume()
    records: dict[str, Record] = dict(checkpoint.state["records"]) if checkpoint else {}
    bench = Bench(folder, observe, stop, clock)
    failures: dict[Unit, Exception] = {}
    units = experiment.units()

    def snapshot() -> Snapshot:
        return {}, {"records": records}

    for number, unit in enumerate(units, 1):
        if str(unit) in records:
            continue
        observe(Notice(f"{unit} ({number} of {len(units)})"))
        try:
            records[str(unit)] = _as_stored(work.measure(unit, bench))
        except Interrupted as interruption:
            raise _of_this_run(interruption, folder) from None
        except Exception as error:  # an arm's fault, whatever it is, is no reason to lose the others
            failures[unit] = error
            session.emit(Notice(f"{unit} failed: {reason(error)}"))
            session.batch_evaluated()
        else:
            session.commit(len(records), snapshot)
            session.batch_evaluated()
    found = {unit: records[str(unit)] for unit in units if str(unit) in records}
    table = experiment.table(found, {unit: reason(error) for unit, error in failures.items()})
    return Outcome(found, failures, table)


def raise_failures(outcome: Outcome, folder: RunFolder) -> None:
    """Raise the first failure's kind of error, saying how many units failed; nothing if none did."""
    if outcome.failures:
        unit, first = next(iter(outcome.failures.items()))
        kind = type(first) if isinstance(first, QuadnasError) else MachineError
        total = len(outcome.failures) + len(outcome.records)
        raise kind(
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


def reason(error: Exception) -> str:
    """An error in one line: a user's own message, anything else with its type in front."""
    text = " ".join(str(error).split())
    return text if isinstance(error, QuadnasError) else f"{type(error).__name__}: {text[:300]}"


def _as_stored(record: Record) -> Record:
    """The record as a resumed run will read it, so that both give the same table."""
    stored: Record = json.loads(json.dumps(record, allow_nan=False))
    return stored


def _of_this_run(interruption: Interrupted, folder: RunFolder) -> Interrupted:
    """The same request to stop, naming this run instead of the unit's own folder."""
    signal_number = interruption.exit_code - 128
    return Interrupted(f"stopped; everything is committed: go on with --resume {folder.path}", signal_number)
