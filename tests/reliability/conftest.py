"""Whole searches of a tiny space, each in a process of its own that may be killed."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from quadnas.latency.devices import load_device
from quadnas.network import load_space
from quadnas.search.limits import price_space
from tests.cli.command import TINY_SPACE

from .runs import outcome

Job = dict[str, Any]


class Server:
    """Forks children that run jobs (see ``server.py``); this process may have threads, that one has none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()
        forkable = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **forkable},
        )  # fmt: skip

    def _ask(self, question: dict[str, Any]) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, job: Job) -> tuple[int, Path]:
        """The process id of the child, and the file that takes its output."""
        log = self.folder / f"job-{next(self._numbers)}.log"
        return self._ask({**job, "log": str(log)}), log

    def wait(self, pid: int) -> int:
        """The exit status; negative: the signal."""
        return self._ask({"wait": pid})

    def run(self, job: Job) -> tuple[int, str]:
        """Exit status and output of a job."""
        pid, log = self.start(job)
        return self.wait(pid), log.read_text()

    def run_all(self, jobs: Sequence[Job]) -> list[tuple[int, str]]:
        """The same for many jobs, two at a time."""
        running: deque[tuple[int, Path]] = deque()
        ends = []
        for job in [*jobs, None]:
            if job is not None:
                running.append(self.start(job))
            while len(running) > (1 if job is not None else 0):
                pid, log = running.popleft()
                ends.append((self.wait(pid), log.read_text()))
        return ends

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(20)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("jobs"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A search under a limit that binds: 3 steps of warm-up, 6 of search (3 of the architecture), 4 of retraining.

    The clock of a job ticks once per look, so that every second step ends in a commit.
    """
    space = tmp_path_factory.mktemp("space") / "tiny.yaml"
    space.write_text(TINY_SPACE)
    low, high = price_space(load_space(str(space)), load_device("cortexA76"), 10, 224).range
    return {
        "device": "cortexA76",
        "max_latency_ms": low + (high - low) / 3,
        "space": str(space),
        "train_images": 75,
        "train_size": 32,
        "seed": 3,
        "schedule": {"warmup_epochs": 1, "search_epochs": 2, "retrain_epochs": 1},
        "recipe": {"batch_size": 16},
        "checkpoint_seconds": 2.0,
    }


@dataclass(frozen=True)
class Whole:
    """The search that nothing disturbed: its folder, outcome, duration in s, and every operation on disk."""

    path: Path
    outcome: dict[str, Any]
    seconds: float
    operations: list[str]


@pytest.fixture(scope="session")
def whole(server: Server, settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    trace = folder / "trace.json"
    job = {"kind": "search", "run": str(folder / "traced"), "settings": settings}
    assert server.run({**job, "trace": str(trace)}) == (0, "")
    start = time.monotonic()
    assert server.run({**job, "run": str(folder / "run")}) == (0, "")
    seconds = time.monotonic() - start
    assert outcome(folder / "traced") == outcome(folder / "run")
    return Whole(folder / "run", outcome(folder / "run"), seconds, json.loads(trace.read_text()))
