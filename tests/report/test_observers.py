"""The page of a search that still runs: when it is written, what it says, how it gives way to the final one."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quadnas.errors import Interrupted
from quadnas.report.observers import LiveReport
from quadnas.report.page import write_report
from quadnas.report.running import Posed
from quadnas.run.events import ArchitectureStep, Derived, Event, Notice, PhaseStarted, WeightStep
from quadnas.run.folder import RunFolder

from .example import device_card, journal, search_events, search_result, search_settings
from .test_live import Clock
from .test_page import Page

RESULT = search_result()
EVENTS = search_events(RESULT, 100)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.create(tmp_path / "run", {}) as folder:
        yield folder


class Watched:
    """A live report with a clock of its own, 5 s a training step, and what it said."""

    def __init__(self, run: RunFolder) -> None:
        self.run, self.clock, self.said = run, Clock(), list[str]()
        posed = Posed(RESULT.slots, RESULT.limit_ms, RESULT.feasible_ms)
        now = datetime(2026, 11, 22, 14, 5, 9, tzinfo=UTC)
        self.report = LiveReport(
            run, search_settings(), posed, device_card(), self._say, self.clock, lambda: now
        )

    def _say(self, event: Event) -> None:
        assert isinstance(event, Notice)
        self.said.append(event.text)

    def journal(self, events: list[Event]) -> None:
        """Only journal them."""
        for line in journal(events):
            self.run.journal.append(line)

    def show(self, events: list[Event]) -> list[tuple[float, str]]:
        """Journal the events and show them; returns when the page was written anew, and what it said."""
        pages: list[tuple[float, str]] = []
        for event in events:
            self.journal([event])
            if isinstance(event, WeightStep):
                self.clock.now += 5
            before = self.page
            self.report(event)
            if self.page != before:
                pages.append((self.clock.now - 1000, self.page))
        return pages

    @property
    def page(self) -> str:
        path = self.run.path / "report.html"
        return path.read_text(encoding="utf-8") if path.exists() else ""


def test_it_is_written_after_10_seconds_and_then_every_30(run: RunFolder) -> None:
    watched = Watched(run)
    pages = watched.show(EVENTS[:26])
    assert [second for second, _ in pages] == [10, 40, 70, 100]
    for second, text in pages:
        page = Page(text)
        assert page.text.count(f"warm-up: step {second / 5:.0f} of 100") == 2  # title and headline
        refresh = [attributes for _, attributes in page.tags if attributes.get("http-equiv") == "refresh"]
        assert [attributes["content"] for attributes in refresh] == ["30"]
    assert watched.said == [f"report so far: {run.path / 'report.html'}"]


def test_it_says_where_the_search_stands(run: RunFolder) -> None:
    phases = [n for n, event in enumerate(EVENTS) if isinstance(event, PhaseStarted)]
    watched = Watched(run)
    middle = phases[1] + 75  # 74 events after the search began
    watched.journal(EVENTS[:middle])
    ((_, text),) = watched.show(EVENTS[middle : middle + 4])
    page = Page(text)
    stands = int(re.findall(r"search: step (\d+) of 100", page.text)[0])
    assert stands == sum(isinstance(event, WeightStep) for event in EVENTS[phases[1] : middle]) + 2
    known = EVENTS[: phases[1] + 1 + stands + (stands - 1) // 2]  # an architecture step after every second
    last = [event for event in known if isinstance(event, ArchitectureStep)][-1]
    losses = [event.loss for event in known if isinstance(event, WeightStep)][-20:]
    for part in (
        "A search in quadranet on digits under a limit of 35 ms on cortexA76",
        "As of 2026-11-22 14:05:09 UTC",
        f"quadnas search --resume {run.path} goes on",
        f"Expected latency {last.expected_ms:.2f} ms limit 35 ms",
        f"Most probable network {last.argmax_ms:.2f} ms",
        f"Training loss {sum(losses) / 20:.4g}",
        "the data are read from a cache",
        "Latency against the limit",
        "held-out networks 1,234",
        "max_latency_ms 35.0",
    ):
        assert part in page.text, part
    heat = [cell for cell, attributes in page.cells if "style" in attributes]
    assert heat == [f"{100 * p:.0f}" for row in last.probabilities for p in row]
    assert not any(attributes.get("class") == "chosen" for _, attributes in page.cells)
    for absent in ("Predicted latency", "Framed", "Why these blocks"):
        assert absent not in page.text


def test_once_it_is_derived_the_architecture_is_told(run: RunFolder) -> None:
    watched = Watched(run)
    watched.show(EVENTS[:4])
    assert "Nothing is decided yet." in Page(watched.page).text
    watched.show([Derived("quadra-k3-e2", 32.5, None, None), *EVENTS[4:10]])
    page = Page(watched.page).text
    assert "The architecture is found: quadra-k3-e2 ; its network" in page
    assert "Nothing is decided" not in page


def test_the_finished_page_says_nothing_of_running(run: RunFolder) -> None:
    watched = Watched(run)
    watched.show(EVENTS[:5])
    assert "Running." in watched.page
    watched.journal(EVENTS[5:])
    write_report(run, search_settings(), RESULT, device_card())
    assert "http-equiv" not in watched.page
    for word in ("Running.", "Stopped", "14:05:09"):
        assert word not in watched.page


def test_a_resumed_run_shows_its_past(run: RunFolder) -> None:
    Watched(run).journal(EVENTS[:62])  # killed after step 60
    back = Watched(run)
    ((_, text),) = back.show([PhaseStarted("warm-up", 60, 100), *EVENTS[62:64]])
    steps = [event.loss for event in EVENTS[:64] if isinstance(event, WeightStep)]
    assert len(steps) == 62
    page = Page(text)
    assert "warm-up: step 62 of 100" in page.text
    assert f"Training loss {sum(steps[-20:]) / 20:.4g}" in page.text


def test_a_stopped_search_leaves_a_page_that_says_so(run: RunFolder) -> None:
    watched = Watched(run)
    with pytest.raises(Interrupted), watched.report:
        watched.show(EVENTS[:4])
        assert watched.page
        watched.show(EVENTS[4:6])
        raise Interrupted("stopped", 15)
    page = Page(watched.page)
    assert "warm-up: step 4 of 100" in page.text
    assert f"Stopped at 2026-11-22 14:05:09 UTC: quadnas search --resume {run.path} goes on." in page.text
    assert "http-equiv" not in watched.page
    assert "Running." not in page.text


def test_another_error_leaves_the_page_as_it_was(run: RunFolder) -> None:
    watched = Watched(run)
    with pytest.raises(ValueError, match="broken"), watched.report:
        watched.show(EVENTS[:4])
        before = watched.page
        watched.show(EVENTS[4:6])
        raise ValueError("broken")
    assert watched.page == before


def test_a_search_without_architecture_steps_has_a_page_too(run: RunFolder) -> None:
    watched = Watched(run)
    pages = watched.show(
        [PhaseStarted("supernet", 0, 9), *(WeightStep("supernet", n, 9, 1.0, 0.5, 0.1) for n in (1, 2))]
    )
    assert len(pages) == 1
    assert "Expected latency" not in Page(watched.page).text
