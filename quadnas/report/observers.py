"""What watches a search: the view on the terminal, the page that is written while it runs, TensorBoard."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

from quadnas.errors import Interrupted
from quadnas.latency.card import DeviceCard
from quadnas.report.facts import FILE_NAME
from quadnas.report.page import render_running
from quadnas.report.progress import Progress
from quadnas.report.running import Posed, Running
from quadnas.report.tensorboard import TensorBoard
from quadnas.report.throttle import Throttle
from quadnas.run.events import Event, Notice, Observer, WeightStep, all_of
from quadnas.run.folder import RunFolder
from quadnas.search.derivation import slot_records
from quadnas.search.settings import SearchSettings
from quadnas.search.work import Work

_FIRST_SECONDS, _EVERY_SECONDS = 10, 30


class LiveReport(AbstractContextManager["LiveReport"]):
    """An observer that writes the report of a search that still runs, after 10 s, then every 30 s at most.

    It reads the journal of the locked ``folder``, so a run that goes on shows its past too, and tells ``say`` once
    where the page is. A search that is asked to stop leaves a page that says so. ``clock`` gives seconds, ``now``
    the time of day.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: SearchSettings,
        posed: Posed,
        card: DeviceCard,
        say: Observer,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._folder, self._settings, self._posed, self._card = folder, settings, posed, card
        self._say, self._now = say, now
        self._throttle = Throttle(clock, _EVERY_SECONDS, wait=_FIRST_SECONDS)
        self._told = False

    def __call__(self, event: Event) -> None:
        """Write the page if it is time."""
        if isinstance(event, WeightStep):
            self._throttle(self._write)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Interrupted):
            self._write(goes_on=False)

    def _write(self, *, goes_on: bool = True) -> None:
        events = self._folder.journal.read()
        written = f"{self._now():%Y-%m-%d %H:%M:%S} UTC"
        running = Running(self._posed, self._folder.path, written, goes_on, _EVERY_SECONDS, events)
        page = self._folder.write(FILE_NAME, render_running(self._settings, running, events, self._card))
        if not self._told:
            self._told = True
            self._say(Notice(f"report so far: {page}"))


@contextmanager
def observed(work: Work, folder: RunFolder, stream: TextIO, *, tensorboard: bool) -> Iterator[Observer]:
    """Everything that watches a search in a locked folder, with its progress on ``stream``.

    Raises MachineError if TensorBoard is asked for and missing.
    """
    problem = work.problem
    settings = problem.settings
    count = len(problem.space.slots)
    slots = slot_records(problem, [0] * count, work.train_size, [()] * count)
    posed = Posed(slots, settings.max_latency_ms, problem.bounds.range)
    progress = Progress(stream, slots)
    page = LiveReport(folder, settings, posed, problem.model.card, progress)
    board = TensorBoard(folder.path) if tensorboard else nullcontext(_nobody)
    with board as written, page, progress:
        yield all_of(progress, page, written)


def _nobody(_: Event) -> None:
    """Watches nothing."""
