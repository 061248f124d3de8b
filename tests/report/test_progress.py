import io

import pytest

from quadnas.report.progress import Progress
from quadnas.run.events import (
    ArchitectureStep,
    Derived,
    Evaluated,
    Event,
    LimitStep,
    Notice,
    PhaseStarted,
    WeightStep,
)

from .example import search_events, search_result

FINDINGS: list[Event] = [
    PhaseStarted("search", 0, 10),
    Notice("mind the gap"),
    Derived("quadra-k3-e2", 32.5, "quadra-k7-e4", 40.0),
    Evaluated("inherited", "test", 0.8125, 0.6, 10000),
]
SENTENCES = [
    "mind the gap",
    "architecture found: 32.50 ms, within the limit",
    "inherited weights: 81.2% of 10,000 images of the test split",
]


def shown(events: list[Event], stream: io.StringIO | None = None) -> str:
    stream = stream or io.StringIO()
    with Progress(stream) as progress:
        for event in events:
            progress(event)
    return stream.getvalue()


@pytest.mark.parametrize("steps", [3, 40, 1000])
def test_a_log_gets_a_line_for_every_tenth_of_a_phase(steps: int) -> None:
    text = shown(search_events(search_result(), steps))
    assert "\r" not in text
    assert text.endswith("\n")
    for phase in ("warm-up", "search", "retraining"):
        lines = [line for line in text.splitlines() if line.startswith(phase)]
        assert len(lines) == 1 + min(steps, 10)
        assert f"{steps}/{steps} (100%)" in lines[-1]


def test_a_line_shows_running_means_and_the_latency_against_the_limit() -> None:
    lines = shown(search_events(search_result(), 40)).splitlines()
    (last,) = [line for line in lines if line.startswith("search 40/40")]
    assert "/35, mult " in last
    assert "E[ms]" not in next(line for line in lines if line.startswith("retraining 40/40"))
    steps = [WeightStep("search", n, 10, loss, loss / 10, 0.1) for n, loss in ((1, 4.0), (2, 2.0))]
    means = shown([PhaseStarted("search", 0, 10), *steps]).splitlines()
    assert "loss 4.00, acc 40%" in means[1]
    assert "loss 3.00, acc 30%" in means[2]


def test_a_line_shows_further_limits() -> None:
    step = ArchitectureStep(
        1, 1.0, 0.5, 33.0, 36.0, 35.0, 0.5, (), beside=(LimitStep("vpu", "ms", 28.0, 31.0, 30.0, 0.5),)
    )
    lines = shown(
        [PhaseStarted("search", 0, 1), step, WeightStep("search", 1, 1, 1.0, 0.5, 0.1)]
    ).splitlines()
    assert lines[1].endswith("E[ms] 33/35, mult 0.5, vpu 28/30")


def test_a_resumed_phase_goes_on_from_its_step() -> None:
    steps = [WeightStep("search", n, 100, 1.0, 0.5, 0.1) for n in range(78, 101)]
    lines = shown([PhaseStarted("search", 77, 100), *steps]).splitlines()
    assert [line.split()[1] for line in lines] == ["step", "80/100", "90/100", "100/100"]


def test_notices_and_findings_are_lines_of_their_own() -> None:
    lines = shown(FINDINGS).splitlines()
    assert lines[1:] == SENTENCES


def test_steps_without_a_phase_are_passed_over() -> None:
    assert shown([WeightStep("search", 1, 10, 1.0, 0.5, 0.1)]) == ""
