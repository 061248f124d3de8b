"""What TensorBoard's own reader finds in the files."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quadnas.report.tensorboard import TensorBoard
from quadnas.run.events import ArchitectureStep, Evaluated, Event, LimitStep, Notice, PhaseStarted, WeightStep
from tests.cli.command import python

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
)

Curve = list[tuple[int, Any]]


def read(folder: Path, phase: str) -> dict[str, Curve]:
    """Every scalar of a phase as TensorBoard shows it: tag -> steps and values."""
    found = accumulator.EventAccumulator(str(folder / "tensorboard" / phase), size_guidance={"scalars": 0})
    found.Reload()
    return {
        tag: [(event.step, pytest.approx(event.value, rel=1e-6)) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def written(run: Path, *events: Event) -> None:
    with TensorBoard(run) as board:
        for event in events:
            board(event)


def weight_steps(phase: str, first: int, last: int, offset: float = 0.0) -> list[Event]:
    return [WeightStep(phase, n, 100, n + offset, n / 100, 0.5**n) for n in range(first, last + 1)]


def losses(first: int, last: int, offset: float = 0.0) -> Curve:
    return [(n, n + offset) for n in range(first, last + 1)]


def test_every_phase_is_a_run_with_its_scalars(tmp_path: Path) -> None:
    architecture = ArchitectureStep(12, 1.5, 0.25, 33.0, 36.0, 35.0, 0.125, ((0.5, 0.5),))
    architecture = replace(architecture, beside=(LimitStep("myriadvpu", "ms", 28.0, 31.0, 30.0, 0.5),))
    written(
        tmp_path,
        PhaseStarted("warm-up", 0, 10),
        *weight_steps("warm-up", 1, 10),
        PhaseStarted("search", 10, 12),
        *weight_steps("search", 11, 12),
        architecture,
        Notice("not a number"),
        Evaluated("inherited", "test", 0.75, 0.6, 100),
    )
    assert read(tmp_path, "warm-up") == {
        "loss": losses(1, 10),
        "accuracy": [(n, n / 100) for n in range(1, 11)],
        "learning_rate": [(n, 0.5**n) for n in range(1, 11)],
    }
    search = read(tmp_path, "search")
    assert search.pop("loss") == losses(11, 12)
    del search["accuracy"], search["learning_rate"]
    assert search == {
        "architecture/loss": [(12, 1.5)],
        "architecture/accuracy": [(12, 0.25)],
        "latency/expected_ms": [(12, 33.0)],
        "latency/argmax_ms": [(12, 36.0)],
        "latency/limit_ms": [(12, 35.0)],
        "latency/multiplier": [(12, 0.125)],
        "myriadvpu/expected": [(12, 28.0)],
        "myriadvpu/argmax": [(12, 31.0)],
        "myriadvpu/limit": [(12, 30.0)],
        "myriadvpu/multiplier": [(12, 0.5)],
        "test_inherited/accuracy": [(12, 0.75)],
        "test_inherited/loss": [(12, 0.6)],
    }


def test_a_resumed_phase_repeats_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at step 30 with a commit at 20: the steps after that are done again, with other values here."""
    written(tmp_path, PhaseStarted("warm-up", 0, 8), *weight_steps("warm-up", 1, 8))
    written(tmp_path, PhaseStarted("search", 8, 100), *weight_steps("search", 9, 30))
    later, now = 3.0, time.time
    monkeypatch.setattr("time.time", lambda: now() + later)  # TensorBoard reads its files by the second
    written(tmp_path, PhaseStarted("search", 20, 100), *weight_steps("search", 21, 40, 0.5))
    assert read(tmp_path, "search")["loss"] == losses(9, 20) + losses(21, 40, 0.5)
    assert read(tmp_path, "warm-up")["loss"] == losses(1, 8)


def test_an_unfinished_run_is_on_disk_when_it_is_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), TensorBoard(tmp_path) as board:
        for event in [PhaseStarted("search", 0, 100), *weight_steps("search", 1, 3)]:
            board(event)
        raise KeyboardInterrupt
    assert read(tmp_path, "search")["loss"] == losses(1, 3)


def test_without_tensorboard_the_search_is_refused_before_it_begins(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.chdir(sys.argv[1]); sys.modules['tensorboard'] = None; from quadnas.cli import main; "
        "sys.argv[1:] = ['search', '--device', 'cortexA76', '--max-latency', '300ms', '--tensorboard']; main()"
    )
    answer = python("-c", code, tmp_path)
    assert (answer.code, answer.out) == (5, "")
    assert 'pip install "quadnas[tensorboard]"' in answer.err
    assert "Traceback" not in answer.err
    assert list(tmp_path.iterdir()) == []
