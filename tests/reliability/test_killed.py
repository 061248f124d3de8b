"""kill -9 at any moment of a search: the resumed run ends with the identical result."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from quadnas.space.model_spec import load_model_spec

from .conftest import Job, Server, Whole
from .runs import journal, outcome

DIED = 9
STRIDE = 600


def kill_points(operations: list[str]) -> list[int]:
    """One of every distinct operation (name, file, lines that ask for it), and every STRIDE-th of all."""
    moments = random.Random(8)
    alike: dict[str, list[int]] = {}
    for number, operation in enumerate(operations):
        alike.setdefault(operation, []).append(number)
    return sorted({*map(moments.choice, alike.values()), *range(0, len(operations), STRIDE)})


def test_killed_at_every_kind_of_operation_on_disk(
    server: Server, settings: dict[str, Any], whole: Whole, tmp_path: Path
) -> None:
    points = kill_points(whole.operations)
    assert len(points) > 80
    jobs: list[Job] = []
    for point in points:
        effect = "torn" if whole.operations[point].startswith("write") else "kill"
        run: Job = {"kind": "search", "run": str(tmp_path / f"{point}"), "settings": settings}
        jobs.append({**run, "at": point, "effect": effect})
    assert {status for status, _ in server.run_all(jobs)} == {DIED}
    # every fourth one dies again on its way back, at most a few commits later
    again = [{**job, "at": (7 * job["at"]) % 400, "effect": "kill"} for job in jobs[::4]]
    statuses = [status for status, _ in server.run_all(again)]
    assert set(statuses) <= {0, DIED}
    assert statuses.count(DIED) > len(again) / 2
    back = [{key: job[key] for key in ("kind", "run", "settings")} for job in jobs]
    for job, end in zip(back, server.run_all(back), strict=True):
        assert end == (0, ""), job["run"]
        assert outcome(Path(job["run"])) == whole.outcome, f"killed at {Path(job['run']).name}"


def killed_after(server: Server, job: Job, seconds: float) -> int:
    pid, _ = server.start(job)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return server.wait(pid)


def test_killed_at_20_random_moments(
    server: Server, settings: dict[str, Any], whole: Whole, tmp_path: Path
) -> None:
    moments = random.Random(20)
    jobs: list[Job] = []
    while len(jobs) < 20:
        job: Job = {"kind": "search", "run": str(tmp_path / f"{len(jobs)}"), "settings": settings}
        if killed_after(server, job, moments.uniform(0.02, 1) * whole.seconds) == -signal.SIGKILL:
            jobs.append(job)
        else:
            shutil.rmtree(job["run"])  # it was faster
    assert {status for status, _ in server.run_all(jobs)} == {0}
    for job in jobs:
        assert outcome(Path(job["run"])) == whole.outcome


def test_killed_again_and_again(
    server: Server, settings: dict[str, Any], whole: Whole, tmp_path: Path
) -> None:
    """No life does more than a third of what a whole run asks of the disk; every one gets some steps further."""
    allowed = len(whole.operations) // 3
    job: Job = {"kind": "search", "run": str(tmp_path / "run"), "settings": settings, "at": allowed}
    statuses = [DIED]
    while statuses[-1] == DIED and len(statuses) < 10:
        statuses.append(server.run(job)[0])
    assert statuses[-1] == 0
    assert statuses.count(DIED) > 2
    assert outcome(tmp_path / "run") == whole.outcome


def test_standalone_training_killed(
    server: Server, settings: dict[str, Any], whole: Whole, tmp_path: Path
) -> None:
    own = {
        "model": load_model_spec(whole.path / "model.yaml").model_dump(mode="json"),
        "epochs": 2,
        **{
            key: settings[key]
            for key in ("train_images", "train_size", "seed", "recipe", "checkpoint_seconds")
        },
    }
    trace = tmp_path / "trace.json"
    job: Job = {"kind": "train", "run": str(tmp_path / "whole"), "settings": own}
    assert server.run({**job, "trace": str(trace)}) == (0, "")
    expected = outcome(tmp_path / "whole")
    assert [event["step"] for event in journal(tmp_path / "whole", "PhaseStarted", "Evaluated")] == [
        *range(1, 9)
    ]
    points = kill_points(json.loads(trace.read_text()))[::3]
    jobs = [{**job, "run": str(tmp_path / f"{point}"), "at": point} for point in points]
    assert {status for status, _ in server.run_all(jobs)} == {DIED}
    back = [{**job, "run": str(tmp_path / f"{point}")} for point in points]
    assert {status for status, _ in server.run_all(back)} == {0}
    for job in back:
        assert outcome(Path(job["run"])) == expected
