"""The progress of a run on stderr: an observer of its events, live on a terminal, line by line elsewhere."""

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Never, Protocol, TextIO

from tqdm import tqdm

from quadnas.report.facts import ms, percent
from quadnas.report.live import LiveView, PhaseState
from quadnas.run.events import (
    ArchitectureStep,
    Compared,
    Derived,
    Evaluated,
    Event,
    Notice,
    PhaseStarted,
    WeightStep,
)
from quadnas.search.result import SlotRecord

_COMPARISONS = 25
_LINE = "{desc} {n_fmt}/{total_fmt} ({percentage:.0f}%), {remaining} left{postfix}"


class View(Protocol):
    """A way to show phases; at most one is open."""

    def start(self, state: PhaseState) -> None:
        """Open a phase."""

    def advance(self, state: PhaseState) -> None:
        """Show its state after a step."""

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def close(self) -> None:
        """Leave the last state of the open phase, if there is one."""


class Progress(AbstractContextManager["Progress"]):
    """Step and rate, running means of loss and accuracy, latency against the limit, multiplier, time left.

    Call it with every event; leave it as a context manager, also on an interruption, to close the open phase. On
    a terminal it is a view that changes in place, with the most probable candidate of each of the ``slots``; where
    ``stream`` is none it writes a line for every tenth of a phase. ``clock`` gives seconds.
    """

    def __init__(
        self,
        stream: TextIO,
        slots: Sequence[SlotRecord] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._view: View = LiveView(stream, slots, clock) if live else LogLines(stream)
        self._state: PhaseState | None = None
        self._losses: list[float] = []

    def __call__(self, event: Event) -> None:
        """Show an event; unknown ones are passed over."""
        match event:
            case PhaseStarted():
                self._view.close()
                self._state = PhaseState(event.phase, event.step, event.steps)
                self._view.start(self._state)
            case WeightStep() if self._state:
                self._state.advance(event)
                self._view.advance(self._state)
            case ArchitectureStep() if self._state:
                self._state.architecture = event
            case Compared():
                self._compare(event)
            case Derived():
                self._losses.clear()
                self._view.close()
                self._view.say(f"architecture found: {ms(event.bound_ms)}, within the limit")
            case Evaluated():
                self._view.close()
                self._view.say(
                    f"{event.network} weights: {percent(event.accuracy)} of {event.images:,} images "
                    f"of the {event.split} split"
                )
            case Notice():
                self._view.say(event.text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._view.close()

    def _compare(self, event: Compared) -> None:
        self._losses.append(event.loss)
        if len(self._losses) % _COMPARISONS == 0:
            self._view.close()
            count, lowest = len(self._losses), min(self._losses)
            self._view.say(f"{count} architectures compared, the lowest loss is {lowest:.4g}")


class LogLines:
    """A line for every tenth of a phase, with the time that is left."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm[Never] | None = None

    def start(self, state: PhaseState) -> None:
        """Say where the phase begins."""
        self._bar = tqdm(
            desc=state.phase,
            total=state.steps,
            initial=state.step,
            file=self._stream,
            bar_format=_LINE,
            delay=math.inf,  # a bar that waits for ever before it shows itself: only its arithmetic is used
        )
        self.say(f"{state.phase}: step {state.step} of {state.steps}")

    def advance(self, state: PhaseState) -> None:
        """Write a line if another tenth is done."""
        if self._bar is None:
            return
        parts = [f"loss {state.loss:.2f}", f"acc {state.accuracy:.0%}"]
        if event := state.architecture:
            parts.append(f"E[ms] {event.expected_ms:.4g}/{event.limit_ms:g}, mult {event.multiplier:.2g}")
            parts += [f"{beside.name} {beside.expected:.4g}/{beside.limit:g}" for beside in event.beside]
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
        total = state.steps or 1
        tenth = 10 * self._bar.n // total
        self._bar.update(state.step - self._bar.n)
        if 10 * state.step // total > tenth:
            self.say(str(self._bar))

    def say(self, text: str) -> None:
        """Write a line."""
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """End the phase."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
