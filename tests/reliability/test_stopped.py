"""A search that is asked to stop, in any phase, commits and goes on to the identical result."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quadnas.run.folder import RunFolder

from .conftest import Job, Server, Whole
from .runs import journal, outcome

SECONDS = 50
MOMENTS = [
    ("warm-up", 2), ("warm-up", 3), ("search", 6), ("search", 9), ("Derived", None), ("Evaluated", None),
    ("training", 2), ("training", 4),
]  # fmt: skip


def test_stopped_in_every_phase(
    server: Server, settings: dict[str, Any], whole: Whole, tmp_path: Path
) -> None:
    """The last step of each phase is among them, and the time between derivation and retraining."""
    back: list[Job] = [
        {"kind": "search", "run": str(tmp_path / f"{number}"), "settings": settings}
        for number in range(len(MOMENTS))
    ]
    stopped: list[Job] = [{**job, "stop": moment} for job, moment in zip(back, MOMENTS, strict=True)]
    for job, (status, text) in zip(stopped, server.run_all(stopped), strict=True):
        assert status == 128 + signal.SIGTERM
        assert f"--resume {job['run']}" in text
        if job["stop"] == ("Derived", None):  # evaluation of a large split is not waited for
            assert journal(Path(job["run"]))[-1]["event"] == "Derived"
    assert {status for status, _ in server.run_all(back)} == {0}
    for job in back:
        assert outcome(Path(job["run"])) == whole.outcome


def test_a_limit_that_does_not_bind_is_said_once(
    server: Server, settings: dict[str, Any], tmp_path: Path
) -> None:
    loose = {**settings, "max_latency_ms": 1e6}
    job: Job = {"kind": "search", "run": str(tmp_path / "run"), "settings": loose}
    assert server.run({**job, "stop": ["search", 8]})[0] == 143
    assert server.run(job) == (0, "")
    (notice,) = [event for event in journal(tmp_path / "run") if event["event"] == "Notice"]
    assert "does not bind" in notice["text"]


def test_a_finished_run_is_only_read(server: Server, settings: dict[str, Any], whole: Whole) -> None:
    def state() -> dict[str, tuple[int, int]]:
        files = (path for path in whole.path.iterdir() if path.name != "lock")
        return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}

    before = state()
    assert server.run({"kind": "search", "run": str(whole.path), "settings": settings}) == (0, "")
    assert state() == before


@pytest.fixture(scope="module")
def long_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """60 steps of warm-up with no commit among them."""
    schedule = {**settings["schedule"], "warmup_epochs": 20, "search_epochs": 1}
    return {**settings, "schedule": schedule, "checkpoint_seconds": 1000.0}


@pytest.fixture(scope="module")
def long_outcome(
    server: Server, long_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("long") / "run"
    assert server.run({"kind": "search", "run": str(path), "settings": long_settings}) == (0, "")
    return outcome(path)


def start_command(server: Server, run: Path, settings: dict[str, Any]) -> tuple[int, Path]:
    config = run.with_suffix(".yaml")
    config.write_text(json.dumps(settings))
    return server.start({"kind": "cli", "argv": ["search", "--config", str(config), "--out", str(run)]})


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def has_event(run: Path, name: str) -> Callable[[], bool]:
    return lambda: (run / "journal.jsonl").exists() and f'"{name}"' in (run / "journal.jsonl").read_text()


def resumed(server: Server, run: Path) -> dict[str, Any]:
    status, text = server.run({"kind": "cli", "argv": ["search", "--resume", str(run), "--json"]})
    assert status == 0, text
    answer: dict[str, Any] = json.loads(text.splitlines()[-1])
    return answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signalled_command(
    number: signal.Signals,
    server: Server,
    long_settings: dict[str, Any],
    long_outcome: dict[str, Any],
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    pid, log = start_command(server, run, long_settings)
    wait_for(has_event(run, "WeightStep"))
    start = time.monotonic()
    os.kill(pid, number)
    assert server.wait(pid) == 128 + number
    assert time.monotonic() - start < SECONDS
    assert f"--resume {run}" in log.read_text()
    checkpoint = RunFolder.open(run).latest()
    assert checkpoint
    assert checkpoint.number == 1
    assert checkpoint.step == len(journal(run, "PhaseStarted"))
    answer = resumed(server, run)
    assert outcome(run) == long_outcome
    result = json.loads(long_outcome["files"]["result.json"])
    assert answer == {"run": str(run)} | {
        key: result[key] for key in ("architecture", "latency_ms", "limit_ms", "accuracy")
    }
    assert (run / "report.html").stat().st_size > 0


def test_second_sigint_does_not_wait_for_the_step(
    server: Server, settings: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    slow = {**settings, "train_images": None, "train_size": 192, "recipe": {"batch_size": 512}}
    pid, _ = start_command(server, run, slow)
    wait_for(has_event(run, "PhaseStarted"))
    for _ in range(2):
        os.kill(pid, signal.SIGINT)
        time.sleep(0.5)
    assert server.wait(pid) == 128 + signal.SIGINT
    assert journal(run, "PhaseStarted") == []
    assert RunFolder.open(run).latest() is None


def test_a_second_process_is_refused(
    server: Server, long_settings: dict[str, Any], long_outcome: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    pid, _ = start_command(server, run, long_settings)
    wait_for(has_event(run, "WeightStep"))
    os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    status, text = server.run({"kind": "cli", "argv": ["search", "--resume", str(run)]})
    seconds = time.monotonic() - start
    os.kill(pid, signal.SIGCONT)
    assert server.wait(pid) == 0
    assert status == 5
    assert f"process {pid}" in text
    assert seconds < 5
    assert outcome(run) == long_outcome
