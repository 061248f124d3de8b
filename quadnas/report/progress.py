"""The progress bars of a search on stderr: an observer of its events."""

import math
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Never, TextIO

from tqdm import tqdm

from quadnas.report.facts import ms, percent
from quadnas.run.events import (
    ArchitectureStep,
    Derived,
    Evaluated,
    Event,
    Notice,
    PhaseStarted,
    WeightStep,
)

_NEWEST = 0.05
_BAR = "{desc} |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}"
_LINE = "{desc} {n_fmt}/{total_fmt} ({percentage:.0f}%), {remaining} left{postfix}"


class Progress(AbstractContextManager["Progress"]):
    """One bar per phase: running means of loss and accuracy, E[ms] against the limit, multiplier, time left.

    Call it with every event; leave it as a context manager, also on an interruption, to close the bar. Where
    ``stream`` is no terminal it writes a line for every tenth of a phase instead.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._bar: tqdm[Never] | None = None
        self._loss = self._accuracy = 0.0
        self._seen = 0
        self._latency = ""

    def __call__(self, event: Event) -> None:
        """Show an event; unknown ones are passed over."""
        match event:
            case PhaseStarted():
                self._start(event)
            case WeightStep():
                self._advance(event)
            case ArchitectureStep():
                self._latency = (
                    f"E[ms] {event.expected_ms:.4g}/{event.limit_ms:g}, mult {event.multiplier:.2g}"
                )
            case Derived():
                self._say(f"architecture found: {ms(event.bound_ms)}, within the limit")
            case Evaluated():
                self._say(
                    f"{event.network} weights: {percent(event.accuracy)} of {event.images:,} images "
                    f"of the {event.split} split"
                )
            case Notice():
                self._say(event.text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _start(self, event: PhaseStarted) -> None:
        self._close()
        self._seen = 0
        self._latency = ""
        self._bar = tqdm(
            desc=event.phase,
            total=event.steps,
            initial=event.step,
            file=self._stream,
            dynamic_ncols=self._live,
            bar_format=_BAR if self._live else _LINE,
            # a bar that waits for ever before it shows itself: only its arithmetic is used
            delay=0 if self._live else math.inf,
        )
        if not self._live:
            self._say(f"{event.phase}: step {event.step} of {event.steps}")

    def _advance(self, event: WeightStep) -> None:
        if self._bar is None:
            return
        self._seen += 1
        share = max(1 / self._seen, _NEWEST)
        self._loss += share * (event.loss - self._loss)
        self._accuracy += share * (event.accuracy - self._accuracy)
        parts = (f"loss {self._loss:.2f}", f"acc {self._accuracy:.0%}", self._latency)
        self._bar.set_postfix_str(", ".join(filter(None, parts)), refresh=False)
        total = self._bar.total or 1
        tenth = 10 * self._bar.n // total
        self._bar.update(event.step - self._bar.n)
        if not self._live and 10 * event.step // total > tenth:
            self._say(str(self._bar))

    def _say(self, text: str) -> None:
        if self._live:
            tqdm.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
