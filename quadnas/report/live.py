"""The live view of a run on a terminal: the state of a phase and the network that it is heading for."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.control import Control
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.segment import ControlType
from rich.text import Text

from quadnas.report.facts import cost, is_free
from quadnas.report.labels import Label, printable, read_label
from quadnas.report.throttle import Throttle
from quadnas.run.events import ArchitectureStep, LimitStep, WeightStep
from quadnas.search.result import SlotRecord

_NEWEST = 0.05
_REFRESH_SECONDS = 0.25
_SHADES = "▁▂▃▄▅▆▇█"
_DIGITS = "0123456789"
_NARROWEST, _WIDEST = 8, 40


@dataclass
class PhaseState:
    """A phase at ``step`` of ``steps``, with running means of loss and accuracy over its latest steps."""

    phase: str
    step: int
    steps: int
    loss: float = 0.0
    accuracy: float = 0.0
    learning_rate: float = 0.0
    seen: int = 0
    architecture: ArchitectureStep | None = None

    def advance(self, event: WeightStep) -> None:
        """Take in a step."""
        self.step, self.learning_rate = event.step, event.learning_rate
        self.seen += 1
        share = max(1 / self.seen, _NEWEST)
        self.loss += share * (event.loss - self.loss)
        self.accuracy += share * (event.accuracy - self.accuracy)


class LiveView:
    """Draws the open phase in place, a few times a second at most; its last state stays when it is closed.

    The width is that of the terminal at every drawing. Of a terminal that cannot show them, no blocks are asked.
    """

    def __init__(self, stream: TextIO, slots: Sequence[SlotRecord], clock: Callable[[], float]) -> None:
        self._console = Console(file=stream, force_terminal=True, highlight=False)
        self._clock = clock
        self._strip = Strip(slots, _SHADES if self._console.encoding.startswith("utf") else _DIGITS)
        self._live: Live | None = None
        self._widths: list[int] = []

    def start(self, state: PhaseState) -> None:
        """Open the view of a phase."""
        self._state = state
        self._bar = BarColumn()
        columns = (TextColumn("[bold]{task.description}"), self._bar, _Pace())
        self._timer = Progress(*columns, console=self._console, auto_refresh=False, get_time=self._clock)
        self._task = self._timer.add_task(state.phase, total=state.steps, completed=state.step)
        self._timer.reset(self._task, completed=state.step)
        self._throttle = Throttle(self._clock, _REFRESH_SECONDS)
        self._live = Live(console=self._console, auto_refresh=False, get_renderable=self._drawn)
        self._live.start()

    def advance(self, state: PhaseState) -> None:
        """Take in the state; draw it if it is time."""
        if self._live:
            self._timer.update(self._task, completed=state.step)
            self._throttle(self._redraw)

    def say(self, text: str) -> None:
        """A line above the view."""
        self._erase_wrapped()
        self._console.print(Text(text))

    def close(self) -> None:
        """Draw the last state and leave it there."""
        if self._live:
            self._erase_wrapped()
            self._live.stop()
            self._live = None
            self._widths = []

    def _redraw(self) -> None:
        assert self._live
        self._erase_wrapped()
        self._live.refresh()

    def _erase_wrapped(self) -> None:
        """Take back the rows that a narrower terminal has broken the drawn lines into: the library knows none."""
        rows = sum(max(0, width - 1) // self._console.width for width in self._widths)
        up = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
        self._console.control(Control(*rows * up))
        self._widths = []

    def _drawn(self) -> RenderableType:
        """At most as many lines as the terminal has, none of them wider."""
        width = self._console.width
        self._bar.bar_width = min(max(_NARROWEST, width - 64), _WIDEST)
        lines = _filled(self._figures(), width)
        if step := self._state.architecture:
            for limit in _limits(step):
                lines += _filled(limit, width)
            lines += self._strip.lines(step.probabilities, width)
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        widths = [self._console.measure(self._timer).maximum, *(line.cell_len for line in lines)]
        self._widths = [min(width_, width) for width_ in widths]
        return Group(self._timer, *lines)

    def _figures(self) -> Iterator[Text]:
        state = self._state
        yield _figure("loss", f"{state.loss:.4g}")
        yield _figure("accuracy", f"{state.accuracy:.1%}")
        yield _figure("learning rate", f"{state.learning_rate:.2e}")
        if step := state.architecture:
            yield _figure("architecture step", f"{step.loss:.4g}, {step.accuracy:.1%}")


class _Pace(ProgressColumn):
    """Steps done, steps per second, time left or taken."""

    def render(self, task: Task) -> Text:
        """One line of the numbers of a task."""
        speed = task.finished_speed or task.speed
        pace = "" if not speed else f"{speed:.3g} steps/s" if speed >= 1 else f"{1 / speed:.3g} s/step"
        left = task.time_remaining
        rest = "" if left is None else f"{_duration(left)} left"
        if task.finished:
            rest = f"in {_duration(task.finished_time or 0)}"
        done = f"{task.completed:,.0f}/{task.total or 0:,.0f}  {task.percentage:3.0f}%"
        return Text("  ".join(filter(None, (done, pace, rest))))


class Strip:
    """The most probable candidate of every slot with a mark for its probability, stage by stage."""

    def __init__(self, slots: Sequence[SlotRecord], marks: str) -> None:
        self._slots, self._marks = slots, marks
        self._names = short_names(slots)
        self._cell = 2 + max((len(name) for row in self._names for name in row), default=0)

    def lines(self, probabilities: Sequence[Sequence[float]], width: int) -> list[Text]:
        """One line for each stage, or more where ``width`` columns do not hold its slots."""
        cells = zip(self._slots, self._names, probabilities, strict=False)
        found = []
        for stage, group in groupby(cells, lambda cell: cell[0].stage):
            head = f"stage {stage + 1}  "
            texts = [self._cell_text(names, row) for _, names, row in group]
            per_line = max(1, (width - len(head)) // self._cell)
            for first in range(0, len(texts), per_line):
                found.append(Text(" " * len(head) if first else head, style="dim"))
                found[-1].append_text(Text().join(texts[first : first + per_line]))
        return found

    def _cell_text(self, names: Sequence[str], row: Sequence[float]) -> Text:
        best = max(range(len(names)), key=lambda i: row[i])
        probability = row[best]
        style = "bold green" if probability >= 0.5 else "dim" if probability * len(names) < 1.5 else "default"
        mark = self._marks[min(int(probability * len(self._marks)), len(self._marks) - 1)]
        return Text(f"{names[best]}{mark}".ljust(self._cell), style=style)


def short_names(slots: Sequence[SlotRecord]) -> tuple[tuple[str, ...], ...]:
    """A name of a few characters for every candidate of every slot: ``k7e4``, or ``-`` for what costs nothing.

    Where several families have arguments, the first letters that tell them apart stand in front.
    """
    rows = [[read_label(text) for text in slot.labels] for slot in slots]
    families = {label.family for row in rows for label in row if label.arguments}
    letters = next(
        n for n in range(100) if len({family[:n] for family in families}) == len(families) or n == 99
    )
    if len(families) == 1:
        letters = 0

    def name(label: Label, price: float | None) -> str:
        if price is not None and is_free(price):
            return "-"
        return (
            f"{label.family[:letters]}{label.short.replace(' ', '')}" if label.arguments else label.family[:8]
        )

    return tuple(
        tuple(printable(name(label, price)) for label, price in zip(row, slot.latency_ms, strict=True))
        for row, slot in zip(rows, slots, strict=True)
    )


def _limits(step: ArchitectureStep) -> Iterator[Iterator[Text]]:
    """Of every limit: expected, most probable, limit, multiplier; the first one is the latency on the device."""
    yield _limit(LimitStep("", "ms", step.expected_ms, step.argmax_ms, step.limit_ms, step.multiplier))
    yield from map(_limit, step.beside)


def _limit(limit: LimitStep) -> Iterator[Text]:
    over = limit.argmax > limit.limit
    yield _figure(f"{limit.name} expected".lstrip(), cost(limit.expected, limit.unit))
    yield _figure("most probable", cost(limit.argmax, limit.unit), "yellow" if over else "green")
    yield _figure("limit", f"{limit.limit:g} ms" if limit.unit == "ms" else f"{limit.limit:,.0f}")
    yield _figure("multiplier", f"{limit.multiplier:.2g}")


def _filled(texts: Iterable[Text], width: int) -> list[Text]:
    """The texts one after the other, on as many lines as they need."""
    lines: list[Text] = []
    for text in texts:
        if lines and lines[-1].cell_len + 2 + text.cell_len <= width:
            lines[-1].append("  ").append_text(text)
        else:
            lines.append(text)
    return lines


def _figure(name: str, value: str, style: str = "bold") -> Text:
    return Text.assemble((f"{name} ", "dim"), (value, style))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
