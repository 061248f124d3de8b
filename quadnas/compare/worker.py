"""What runs in a worker: one unit of an experiment, opened from the settings in its run folder."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from threading import Event, Thread

import torch

from quadnas.compare.executor import attempt
from quadnas.compare.experiment import Bench, Record, experiment_from
from quadnas.compare.handover import GRACE_SECONDS, Call, Left
from quadnas.compare.machine import machine_text
from quadnas.errors import ConfigError, Interrupted
from quadnas.report.progress import Progress
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag, stop_requested
from quadnas.run.lock import Lock
from quadnas.run.session import digests
from quadnas.training.device import arithmetic, compute_device

_WATCH_SECONDS = 0.5


def measure_unit(text: str) -> None:
    """Measure the unit of a ``Call`` in JSON, and leave what came of it in the run folder.

    Takes and returns nothing but text, so that an engine that pickles its calls pickles no object of ours. A
    worker whose main process is gone stops by itself.
    """
    call = Call.parsed(text)
    lock = Lock(call.file(".lock"))
    lock.acquire()
    try:
        call.file(".json").unlink(missing_ok=True)
        with (
            chdir(call.cwd),
            stop_requested() as stop,
            _watched(call, stop),
            Progress(sys.stderr) as progress,
        ):
            torch.set_num_threads(call.threads)
            try:
                found = attempt(lambda: _measure(call, stop, progress))
            except Interrupted:
                left = Left(call.inputs, machine_text())
            else:
                kept = {"record": found} if isinstance(found, dict) else {"error": found}
                left = Left(call.inputs, machine_text(), **kept)
            left.write(call.file(".json"))
    finally:
        lock.release()


def _measure(call: Call, stop: StopFlag, progress: Progress) -> Record:
    folder = RunFolder.open(Path(call.run))
    experiment = experiment_from(folder.settings, call.run)
    (unit,) = (unit for unit in experiment.units() if str(unit) == call.unit)
    work = experiment.narrowed(unit.arm).prepare()
    _require_same(work.inputs, call.inputs)
    if stop.signal is not None or call.abandoned:
        raise Interrupted("stopped before it began", stop.signal or signal.SIGTERM)
    return work.measure(unit, Bench(folder, progress, stop, time.perf_counter, shared=True))


def _require_same(inputs: Mapping[str, object], expected: Mapping[str, str]) -> None:
    """Refuse data or models that are not those of the main process; the device may be another one."""
    devices_own = tuple(arithmetic(compute_device()))
    found = digests(inputs)
    if changed := [
        name
        for name, digest in found.items()
        if expected.get(name) != digest and not name.startswith(devices_own)
    ]:
        raise ConfigError(
            f"the worker finds another {' and another '.join(changed)} than the process that started it; give it "
            "the same files under the same paths"
        )


@contextmanager
def _watched(call: Call, stop: StopFlag) -> Iterator[None]:
    """Ask the unit to stop when nobody waits for it any more, and end the process if it does not."""
    done = Event()

    def watch() -> None:
        while not done.wait(_WATCH_SECONDS):
            if call.abandoned:
                stop.signal = stop.signal or signal.SIGTERM
                if not done.wait(GRACE_SECONDS):
                    os._exit(128 + signal.SIGTERM)
                return

    watcher = Thread(target=watch, name="watches for the main process", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


if __name__ == "__main__":
    measure_unit(sys.argv[1])
