"""The live view, read off a terminal that reflows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from quadnas.report.live import short_names
from quadnas.report.progress import Progress
from quadnas.report.throttle import Throttle
from quadnas.run.events import ArchitectureStep, Event, LimitStep, PhaseStarted, WeightStep
from quadnas.search.result import SlotRecord

from .example import LABELS, search_events, search_result, slot
from .screen import Screen
from .test_progress import FINDINGS, SENTENCES


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    screen = Screen()
    for name in ("COLUMNS", "LINES", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.get_terminal_size", screen.size)
    return screen


@contextmanager
def showing(screen: Screen, clock: Clock, slots: Sequence[SlotRecord] = ()) -> Iterator[Progress]:
    with Progress(screen, slots, clock) as progress:
        yield progress


def weight_step(step: int, phase: str = "search", steps: int = 10_000) -> WeightStep:
    return WeightStep(phase, step, steps, 1.5, 0.25, 1e-3)


def architecture_step(rows: Sequence[Sequence[float]], argmax_ms: float = 36.0) -> ArchitectureStep:
    return ArchitectureStep(4, 1.625, 0.5, 33.25, argmax_ms, 35.0, 0.125, tuple(map(tuple, rows)))


SLOTS = search_result().slots
SURE = [0.9, 0.02, 0.02, 0.02, 0.02, 0.01, 0.01]
LIKELY = [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.4]
FLAT = [1 / 7] * 7


def test_the_view_of_a_search(screen: Screen, clock: Clock) -> None:
    with showing(screen, clock, SLOTS) as progress:
        progress(PhaseStarted("search", 1900, 10_000))
        progress(architecture_step([SURE, LIKELY, FLAT, SURE, SURE]))
        for step in range(1901, 2001):
            clock.now += 0.5
            progress(weight_step(step))
        # 2 steps a second: 8000 more take 4000 s
        assert screen.lines == [
            "search ━━━╺━━━━━━━━━━━━ 2,000/10,000   20%  2 steps/s  1:06:40 left",
            "loss 1.5  accuracy 25.0%  learning rate 1.00e-03  architecture step 1.625, 50.0%",
            "expected 33.25 ms  most probable 36.00 ms  limit 35 ms  multiplier 0.12",
            "stage 1  k3e2█ -▄    k3e2▂",
            "stage 2  k3e2█ k3e2█",
        ]


def test_further_limits_have_lines_of_their_own(screen: Screen, clock: Clock) -> None:
    beside = (
        LimitStep("myriadvpu", "ms", 28.25, 31.0, 30.0, 0.5),
        LimitStep("weights", "parameters", 1234567.8, 1000000.0, 2e6, 0.0),
    )
    with showing(screen, clock, SLOTS[:1]) as progress:
        progress(PhaseStarted("search", 0, 10))
        progress(replace(architecture_step([SURE]), beside=beside))
        clock.now += 1
        progress(weight_step(1, steps=10))
    assert screen.lines[2:] == [
        "expected 33.25 ms  most probable 36.00 ms  limit 35 ms  multiplier 0.12",
        "myriadvpu expected 28.25 ms  most probable 31.00 ms  limit 30 ms  multiplier 0.5",
        "weights expected 1,234,568 parameters  most probable 1,000,000 parameters",
        "limit 2,000,000  multiplier 0",
        "stage 1  k3e2█",
    ]


def test_slow_steps_are_counted_in_seconds(screen: Screen, clock: Clock) -> None:
    with showing(screen, clock) as progress:
        progress(PhaseStarted("retraining", 990, 1000))
        for step in range(991, 996):
            clock.now += 4
            progress(weight_step(step, "retraining", 1000))
        assert screen.lines[0].endswith("995/1,000  100%  4 s/step  0:20 left")


def test_the_last_state_stays_and_what_was_said_stands_above_it(screen: Screen, clock: Clock) -> None:
    with pytest.raises(KeyboardInterrupt), showing(screen, clock) as progress:
        progress(FINDINGS[0])
        progress(FINDINGS[1])
        clock.now += 60
        progress(weight_step(4, steps=10))
        progress(PhaseStarted("retraining", 0, 7))
        clock.now += 0.01  # too soon to be drawn
        progress(weight_step(3, "retraining", 7))
        raise KeyboardInterrupt
    first, second, *rest = screen.lines
    assert first == SENTENCES[0]
    assert second.startswith("search ━") and "4/10   40%" in second
    assert rest[0] == "loss 1.5  accuracy 25.0%  learning rate 1.00e-03"
    assert "3/7   43%" in rest[1]
    assert len(screen.lines) == 5
    assert (screen.row, screen.column) == (5, 0)
    assert "".join(screen.writes).rindex("\x1b[?25h") > "".join(screen.writes).rindex("\x1b[?25l")


def test_findings_stand_below_the_phase_that_they_are_of(screen: Screen, clock: Clock) -> None:
    with showing(screen, clock) as progress:
        for event in FINDINGS:
            progress(event)
    lines = screen.lines
    assert (lines[0], lines[-2:]) == (SENTENCES[0], SENTENCES[1:])
    assert lines[1].startswith("search ")


@pytest.mark.parametrize("widths", [(80, 40), (200, 80, 200), (120, 60, 200, 40)])
def test_a_resized_terminal_keeps_no_debris(screen: Screen, clock: Clock, widths: tuple[int, ...]) -> None:
    slots = tuple(slot(stage, "identity") for stage in (0, 1) for _ in range(12))
    screen.resize(widths[0])
    with showing(screen, clock, slots) as progress:
        for event in search_events(search_result(slots=slots), 40)[:100]:
            progress(event)
            clock.now += 1
            if isinstance(event, WeightStep) and event.phase == "search" and event.step in (5, 10, 15):
                before = [line for line in screen.lines if line.startswith("warm-up")]
                screen.resize(widths[(event.step // 5) % len(widths)])
    starts = [line.split()[0] for line in screen.lines]
    assert starts.count("search") == 1
    assert starts.count("loss") == 2 or widths[0] < 60
    last = screen.lines[starts.index("search") :]
    assert sum(line.startswith("stage ") for line in last) == 2
    assert before


def test_a_view_is_drawn_seldom_and_for_one_per_cent_of_the_time(screen: Screen, clock: Clock) -> None:
    with showing(screen, clock) as progress:
        progress(PhaseStarted("search", 0, 10_000))
        before = len(screen.writes)
        for step in range(1, 1001):
            clock.now += 0.01
            progress(weight_step(step))
        assert len(screen.writes) - before <= 2 * 10 / 0.25


class Working:
    """Work of a given length, and when it was done."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds
        self.starts: list[float] = []

    def __call__(self) -> None:
        self.starts.append(self.clock.now)
        self.clock.now += self.seconds


def test_cheap_work_is_done_at_its_interval(clock: Clock) -> None:
    work, throttle = Working(clock, 0.0), Throttle(clock, 30.0, wait=10.0)
    for _ in range(200):
        throttle(work)
        clock.now += 1
    assert [start - 1000 for start in work.starts] == [10, 40, 70, 100, 130, 160, 190]


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_dear_work_takes_one_per_cent_of_the_time(clock: Clock, seconds: float) -> None:
    work, throttle = Working(clock, seconds), Throttle(clock, 1.0)
    while clock.now < 1000 + 100_000:
        throttle(work)
        clock.now += 0.25
    share = len(work.starts) * seconds / (clock.now - 1000)
    assert 0.0095 < share <= 0.0101


def test_a_terminal_without_blocks_gets_digits(
    screen: Screen, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Screen, "encoding", "latin-1")
    with showing(screen, clock, SLOTS[:2]) as progress:
        progress(PhaseStarted("search", 0, 10))
        progress(architecture_step([SURE, LIKELY]))
        clock.now += 1
        progress(weight_step(1, steps=10))
    assert screen.lines[-1] == "stage 1  k3e29 -4"
    assert "".join(screen.lines).isascii()


def test_a_dumb_terminal_gets_lines(screen: Screen, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with showing(screen, clock) as progress:
        progress(PhaseStarted("search", 0, 10))
    assert screen.lines == ["search: step 0 of 10"]


def test_names_tell_the_families_of_a_mixed_space_apart() -> None:
    labels = ("quadra-k3-e2", "conv-k3-e2", "mbconv-k3-e3", "swin-h4", "identity", "shift")
    record = slot(0, "identity").model_copy(
        update={"labels": labels, "latency_ms": (1.0, 1.0, 1.0, 1.0, 0.0, None)}
    )
    assert short_names([record]) == (("qk3e2", "ck3e2", "mk3e3", "sh4", "-", "shift"),)
    assert short_names(SLOTS)[0] == ("k3e2", "k3e4", "k5e2", "k5e4", "k7e2", "k7e4", "-")


def test_names_cannot_command_the_terminal() -> None:
    record = slot(0, "identity").model_copy(update={"labels": ("\x1b[2J-k3", *LABELS[1:])})
    assert "\x1b" not in short_names([record])[0][0]


def test_an_unknown_event_changes_nothing(screen: Screen, clock: Clock) -> None:
    with showing(screen, clock) as progress:
        progress(Event())
        progress(weight_step(1))
    assert screen.lines == [""]
