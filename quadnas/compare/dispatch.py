"""Handing units to workers elsewhere: starting, waiting, stopping; an executor adds how a worker starts."""

import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path

from quadnas.compare.executor import Answer, Executor
from quadnas.compare.experiment import Bench, Unit, Work
from quadnas.compare.handover import GRACE_SECONDS, Call, Left, owner_of
from quadnas.errors import MachineError, QuadnasError
from quadnas.run.events import Notice
from quadnas.run.session import digests

_LAST_WORDS = 300

Running = dict[Unit, tuple[Call, "Task"]]


class Task(ABC):
    """A worker that was started for one unit."""

    @abstractmethod
    def ended(self) -> bool:
        """Whether it is gone, for whatever reason."""

    @abstractmethod
    def stop(self) -> None:
        """Ask it to commit and stop."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once; nothing if it has ended."""

    @abstractmethod
    def reason(self) -> str:
        """How it ended, where it left no answer."""


class Dispatch(Executor):
    """An executor whose workers run ``measure_unit`` and answer in the run folder, which all of them see."""

    poll_seconds = 0.1

    @abstractmethod
    def start(self, call: Call) -> Task:
        """Start, or put in a queue, a worker for the call; raises MachineError."""

    @abstractmethod
    def threads(self) -> int:
        """How many threads a worker computes with."""

    @abstractmethod
    def notice(self) -> str:
        """How many workers there are, and with what each."""

    def open(self, run: Path) -> None:
        """Before the first start; ``run`` is the run folder. Default: nothing."""

    def close(self) -> None:
        """After the last worker has ended, or ``open`` has failed. Default: nothing."""

    def measure(self, units: Iterable[Unit], work: Work, bench: Bench) -> Generator[Answer, None, None]:
        """See ``Executor``."""
        running: Running = {}
        waiting = iter(units)
        blank = self._blank(work, bench)
        try:
            self.open(Path(blank.run))
            bench.observe(Notice(self.notice()))
            while bench.stop.signal is None:
                full = self.workers is not None and len(running) >= self.workers
                if not full and (unit := next(waiting, None)):
                    call = replace(blank, unit=str(unit))
                    try:
                        running[unit] = call, self.start(call)
                    except QuadnasError as error:
                        yield Answer(unit, error, "")
                elif not running:
                    return
                else:
                    time.sleep(self.poll_seconds)
                    yield from _answers(running, bench)
            yield from self._stopped(running, bench)
        finally:
            for _, task in running.values():
                task.kill()
            self.close()

    def _blank(self, work: Work, bench: Bench) -> Call:
        """The call that all units share but for the unit."""
        run = bench.folder.path.resolve()
        return Call(str(run), str(Path.cwd()), "", owner_of(run), digests(work.inputs), self.threads())

    def _stopped(self, running: Running, bench: Bench) -> Generator[Answer, None, None]:
        """Ask all workers to stop, and yield the records of those that were done before they heard it."""
        for _, task in running.values():
            task.stop()
        deadline = bench.clock() + GRACE_SECONDS
        while running and bench.clock() < deadline:
            time.sleep(self.poll_seconds)
            yield from (answer for answer in _answers(running, bench) if isinstance(answer.found, dict))


def _answers(running: Running, bench: Bench) -> Generator[Answer, None, None]:
    """What came of the units whose workers have ended, which leave ``running``."""
    for unit, (call, task) in list(running.items()):
        if not task.ended():
            continue
        del running[unit]
        left = Left.read(call.file(".json"))
        if left is None:
            yield Answer(unit, MachineError(task.reason()), "")
        elif left.record is not None:
            bench.observe(Notice(f"{unit} is done"))
            yield Answer(unit, left.record, left.machine)
        else:
            outside = MachineError("its worker was asked to stop from outside, and committed what it had")
            yield Answer(unit, left.error or outside, left.machine)


def last_words(log: Path) -> str:
    """The end of a reason: the last line in a worker's log, empty if there is none."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"; the last line in {log} is: {last[:_LAST_WORDS]}" if last else ""
