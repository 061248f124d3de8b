"""Units in real processes: each is measured once, dies alone, and none outlives the command."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from quadnas.compare.executors import slurm
from quadnas.compare.handover import Left, answer_file
from tests.cli.command import quadnas, write

from . import acting

XOR = """\
format: quadnas-experiment/1
kind: xor
title: Toy
sigmas: [0.3]
train_points: 40
test_points: 100
steps: 5
starts: 1
arms: {neuron: {neuron: quadratic}}
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which the acting kind is known, one thread for each process."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    acting.install(tmp_path, monkeypatch)
    return tmp_path


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def results(run: Path) -> dict[str, str]:
    return {name: (run / name).read_text() for name in ("table.csv", "table.md", "results.json")}


def test_processes_leave_the_same_results_as_this_one(place: Path) -> None:
    file = write(place / "xor.yaml", XOR)
    assert quadnas("compare", file, "--out", "here").code == 0
    answer = quadnas("compare", file, "--out", "beside", "--workers", 2)
    assert answer.code == 0, answer.err
    assert "2 processes side by side, 1 thread each" in answer.err
    assert results(place / "beside") == results(place / "here")


def test_a_worker_that_fails_or_dies_fails_its_unit_alone(place: Path) -> None:
    file = acting.experiment(place, gone="die", bad="raise", good="measure")
    answer = quadnas("compare", file, "--out", "run", "--workers", 2, "--json")
    assert answer.code == 5
    assert (
        "2 of 3 units failed, first gone: its process was ended by SIGSEGV; the last line in " in answer.err
    )
    rows = {row["arm"]: row for row in json.loads(answer.out)["rows"]}
    assert (rows["good"]["value"], rows["good"]["shared"]) == (4.0, 1)
    assert rows["gone"]["failure"].endswith("the last words")
    assert rows["bad"]["failure"].endswith("RuntimeError: CUDA out of memory tried to allocate")


def test_killed_it_goes_on_and_no_worker_outlives_it(place: Path) -> None:
    file = acting.experiment(place, long="count")
    arguments = [sys.executable, "-m", "quadnas.cli", "compare", str(file), "--out", "run", "--workers", "2"]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as command:
        try:
            wait_for(lambda: len(acting.steps(place)) >= 3)
        finally:
            command.kill()
    worker = int(acting.diary(place)[0][0])
    wait_for(lambda: not alive(worker), 30)
    assert len(acting.steps(place)) < acting.STEPS
    answer = quadnas("compare", "--resume", "run", "--workers", 2, "--json")
    assert answer.json["rows"] == [{"arm": "long", "value": 4.0, "shared": 1}]
    assert acting.steps(place) == list(range(acting.STEPS))
    assert acting.events(place / "run", "long") == [f"step {step}" for step in range(acting.STEPS)]


@contextmanager
def stopping(when: Callable[[], bool]) -> Iterator[list[float]]:
    """Send this process SIGTERM once ``when`` holds; the list is given the time of it."""
    asked: list[float] = []
    over = Event()

    def ask() -> None:
        wait_for(lambda: over.is_set() or when())
        if not over.is_set():
            asked.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)

    thread = Thread(target=ask)
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join()


def test_asked_to_stop_the_workers_commit_and_end(place: Path) -> None:
    file = acting.experiment(place, long="count", never="deaf")

    def both() -> bool:
        return len(acting.steps(place)) >= 3 and any(unit == "never" for _, unit, _ in acting.diary(place))

    with stopping(both) as asked:
        answer = quadnas("compare", file, "--out", "run", "--workers", 2)
        assert time.monotonic() - asked[0] < 50  # five times what is promised
    assert answer.code == 143
    assert answer.err.endswith("quadnas: stopped; everything is committed: go on with --resume run\n")
    assert not any(alive(int(process)) for process, _, _ in acting.diary(place))
    assert Left.read(answer_file(place / "run", "long")) is not None  # it was not ended by force
    assert acting.steps(place) == list(range(len(acting.events(place / "run", "long"))))


@pytest.fixture(params=["slurm", "ray"])
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The engine of a cluster on this machine alone, by its own local mode."""
    package = {"slurm": "submitit", "ray": "ray"}[request.param]
    pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setattr(slurm, "CLUSTER", "local")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    return str(request.param)


def test_a_job_that_dies_takes_no_other_with_it(place: Path, cluster: str) -> None:
    file = acting.experiment(place, gone="die", good="measure")
    answer = quadnas("compare", file, "--out", "run", "--cluster", cluster, "--json")
    assert answer.code == 5, answer.err
    rows = {row["arm"]: row for row in json.loads(answer.out)["rows"]}
    assert (rows["good"]["value"], rows["good"]["shared"]) == (4.0, 1)
    assert re.search("its (Ray task|job [0-9]+) (failed|ended as)", rows["gone"]["failure"])


def test_a_job_that_is_asked_to_stop_commits_and_another_place_goes_on(place: Path, cluster: str) -> None:
    file = acting.experiment(place, long="count")
    with stopping(lambda: len(acting.steps(place)) >= 3):
        answer = quadnas("compare", file, "--out", "run", "--cluster", cluster)
    assert answer.code == 143, answer.err
    assert not any(alive(int(process)) for process, _, _ in acting.diary(place))
    assert acting.steps(place) == list(range(len(acting.events(place / "run", "long"))))
    answer = quadnas("compare", "--resume", "run", "--json")
    assert answer.json["rows"] == [{"arm": "long", "value": 4.0, "shared": 0}]
    assert acting.steps(place) == list(range(acting.STEPS))
