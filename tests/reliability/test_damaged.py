"""Damaged files, a full disk, diverging training: the last commit stands, and nothing wrong is ever the result."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from quadnas.data.base import load_data
from quadnas.errors import ConfigError
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.search.loop import search
from quadnas.search.settings import SearchSettings
from quadnas.search.strategies.swap import Swap
from quadnas.search.strategy import ArchitectureUpdate
from quadnas.search.work import prepare
from quadnas.training.evaluation import evaluate

from .conftest import Job, Server, Whole
from .runs import ARTEFACTS, journal, outcome
from .test_killed import kill_points


def newest(run: Path, kind: str) -> Path:
    return max(run.glob(f"checkpoint-*.{kind}"))


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    path.write_bytes(data)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_last_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "tensors": lambda run: flip_a_bit(newest(run, "safetensors")),
    "no tensors": lambda run: newest(run, "safetensors").unlink(),
    "manifest": lambda run: halve(newest(run, "json")),
    "journal": lambda run: drop_last_line(run / "journal.jsonl"),
}


@pytest.fixture
def stopped(server: Server, settings: dict[str, Any], tmp_path: Path) -> Callable[[str, int], Job]:
    """Runs that were asked to stop after a step of a phase; returns the job that goes on."""

    def stop(phase: str, step: int) -> Job:
        job: Job = {"kind": "search", "run": str(tmp_path / f"{phase}-{step}"), "settings": settings}
        assert server.run({**job, "stop": [phase, step]})[0] == 143
        return job

    return stop


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("moment", [("search", 8), ("training", 3)])
def test_falls_back_to_the_commit_before(
    damage: str, moment: tuple[str, int], server: Server, whole: Whole, stopped: Callable[[str, int], Job]
) -> None:
    job = stopped(*moment)
    run = Path(job["run"])
    DAMAGES[damage](run)
    assert server.run(job) == (0, "")
    (notice,) = [event["text"] for event in journal(run) if event["event"] == "Notice"]
    assert "fell back to checkpoint" in notice
    assert outcome(run, without=("Notice",)) == whole.outcome


def test_falls_back_across_stages(
    server: Server, settings: dict[str, Any], whole: Whole, tmp_path: Path
) -> None:
    """The first commit of retraining is lost: derivation happens again, from the last of the supernet."""
    after_commit = next(
        number
        for number, operation in enumerate(whole.operations)
        if operation.startswith("write journal.jsonl") and " stage:" in operation
    )
    job: Job = {"kind": "search", "run": str(tmp_path / "run"), "settings": settings}
    assert server.run({**job, "at": after_commit})[0] == 9
    flip_a_bit(newest(tmp_path / "run", "safetensors"))
    assert server.run(job) == (0, "")
    assert outcome(tmp_path / "run", without=("Notice",)) == whole.outcome


def test_a_torn_journal_is_repaired(server: Server, whole: Whole, stopped: Callable[[str, int], Job]) -> None:
    job = stopped("search", 8)
    with (Path(job["run"]) / "journal.jsonl").open("a") as file:
        file.write('{"event": "WeightStep", "phase": "sea')
    assert server.run(job) == (0, "")
    assert outcome(Path(job["run"])) == whole.outcome


def test_nothing_but_corrupt_checkpoints(server: Server, stopped: Callable[[str, int], Job]) -> None:
    job = stopped("search", 8)
    for path in Path(job["run"]).glob("checkpoint-*.safetensors"):
        flip_a_bit(path)
    before = {path.name: path.read_bytes() for path in Path(job["run"]).iterdir() if path.name != "lock"}
    status, text = server.run({"kind": "cli", "argv": ["search", "--resume", job["run"]]})
    assert status == 4
    assert "no intact checkpoint" in text
    assert all((Path(job["run"]) / name).read_bytes() == data for name, data in before.items())


def test_full_disk(server: Server, settings: dict[str, Any], whole: Whole, tmp_path: Path) -> None:
    points = kill_points(whole.operations)[::6]
    back: list[Job] = [
        {"kind": "search", "run": str(tmp_path / f"{p}"), "settings": settings} for p in points
    ]
    full = [{**job, "at": p, "effect": "full"} for job, p in zip(back, points, strict=True)]
    full.append({**back[-1], "run": str(tmp_path / "small"), "free_bytes": 1_000_000})
    for job, (status, text) in zip(full, server.run_all(full), strict=True):
        assert status == 5, text
        assert "free" in text
        run = Path(job["run"])
        assert list(run.glob(".*.tmp")) == []
        for name in ARTEFACTS:
            if (run / name).exists():
                assert (run / name).read_bytes() == whole.outcome["files"][name]
    back.append({**back[-1], "run": str(tmp_path / "small")})
    for job, end in zip(back, server.run_all(back), strict=True):
        assert end == (0, "")
        assert outcome(Path(job["run"])) == whole.outcome


def test_diverging_loss(server: Server, settings: dict[str, Any], tmp_path: Path) -> None:
    config, run = tmp_path / "hot.yaml", tmp_path / "run"
    hot = {**settings, "recipe": {"batch_size": 16, "rate": 1e30}, "checkpoint_seconds": 1e-9}
    config.write_text(json.dumps(hot))
    for argv in (["--config", str(config), "--out", str(run)], ["--resume", str(run)]):
        status, text = server.run({"kind": "cli", "argv": ["search", *argv]})
        assert status == 2
        assert "diverged" in text
        assert "recipe.rate" in text
        checkpoint = RunFolder.open(run).latest()
        assert checkpoint
        assert checkpoint.notice == ""
        assert checkpoint.step == len(journal(run, "PhaseStarted"))
        assert all(math.isfinite(event["loss"]) for event in journal(run, "PhaseStarted"))


@pytest.mark.parametrize("moment", [("search", 8), ("training", 2)])
def test_infinite_weight_in_a_checkpoint(
    moment: tuple[str, int], server: Server, stopped: Callable[[str, int], Job]
) -> None:
    job = stopped(*moment)
    with RunFolder.open(Path(job["run"])) as folder:
        checkpoint = folder.latest()
        assert checkpoint
        stem = next(name for name in checkpoint.tensors if name.endswith("0.0.weight"))
        checkpoint.tensors[stem].view(-1)[0] = torch.inf
        folder.commit(checkpoint.tensors, checkpoint.state, step=checkpoint.step)
    committed = newest(folder.path, "safetensors")
    status, text = server.run(job)
    assert status == 2
    assert f"at step {moment[1] + 1} " in text
    assert newest(folder.path, "safetensors") == committed


def test_diverging_architecture_step(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Swap, "update_architecture", lambda *_: ArchitectureUpdate(math.nan, 0.0))
    work = prepare(SearchSettings.model_validate_json(json.dumps(settings)))
    with (
        RunFolder.create(tmp_path / "run", settings) as folder,
        pytest.raises(ConfigError, match="nan at the architecture step after step 5"),
    ):
        search(work, folder, lambda _: None, StopFlag(), itertools.count().__next__)
    checkpoint = folder.latest()
    assert checkpoint
    assert checkpoint.step < 5


def test_weights_too_large_to_evaluate() -> None:
    class Overflowing(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images), 10), torch.inf)

    with pytest.raises(ConfigError, match="loss on 359 images is nan"):
        evaluate(Overflowing(), load_data("digits").test, size=8)


def test_another_space_is_not_gone_on_with(server: Server, settings: dict[str, Any], tmp_path: Path) -> None:
    """An edited space file would give weights that do not fit, or silently another result."""
    space = tmp_path / "space.yaml"
    text = Path(settings["space"]).read_text()
    space.write_text(text)
    job: Job = {"kind": "search", "run": str(tmp_path / "run"), "settings": {**settings, "space": str(space)}}
    assert server.run({**job, "stop": ["search", 8]})[0] == 143
    space.write_text(text.replace("kernel: [3, 5]", "kernel: [5, 3]"))
    resume = {"kind": "cli", "argv": ["search", "--resume", job["run"]]}
    status, message = server.run(resume)
    assert status == 2
    assert "the space changed" in message
    space.write_text(text)
    assert server.run(resume)[0] == 0
