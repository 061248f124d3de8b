"""Two processes that train one network (gloo): the result of one process, stopped, killed and resumed together."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from quadnas.config import write_yaml
from quadnas.run.folder import RunFolder
from quadnas.training.standalone import new_network
from tests.reliability.runs import journal, outcome
from tests.training.toys import MBCONV, QUADRA, toy_spec

STEPS = 48
AUGMENTATION = {"mixup_alpha": 0.8, "random_erasing": 0.25}
RECIPE = {"batch_size": 16, "gradient_accumulation": 2, "ema_decay": 0.8, "augmentation": AUGMENTATION}


class Trainer:
    """Runs quadnas in ``world`` processes, two unless told otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "log"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("processes.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.model = folder / "toy.yaml"
        self.model.write_text(write_yaml(toy_spec(QUADRA, QUADRA)))
        self.config = folder / "settings.yaml"
        length = {"train_images": 96, "train_size": 16, "epochs": 8, "seed": 5, "checkpoint_seconds": 0.1}
        settings = {**length, "recipe": RECIPE}
        self.config.write_text(json.dumps(settings))

    def new(self, run: Path, **job: Any) -> list[int]:
        """The exit statuses of a training from the start."""
        return self.run("train", self.model, "--config", self.config, "--out", run, "--json", **job)

    def run(self, *argv: object, world: int = 2, **job: Any) -> list[int]:
        """The exit statuses of quadnas with these arguments."""
        assert self._process.stdin
        assert self._process.stdout
        question = {"argv": [str(a) for a in argv], "world": world, "log": str(self._log), **job}
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer: list[int] = json.loads(self._process.stdout.readline())
        return answer

    def said(self, rank: int) -> str:
        """What a process of the last run wrote."""
        return Path(f"{self._log}.{rank}").read_text()

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.kill()
        self._process.wait(20)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    trainer = Trainer(tmp_path_factory.mktemp("processes"))
    yield trainer
    trainer.close()


@pytest.fixture(scope="module")
def whole(trainer: Trainer) -> Path:
    """The run of two processes that nothing disturbed; read it, never change it."""
    path = trainer.folder / "whole"
    assert trainer.new(path, watch=str(trainer.folder / "shares")) == [0, 0], trainer.said(0) + trainer.said(
        1
    )
    answer = json.loads(trainer.said(0).splitlines()[-1])
    assert answer["run"] == str(path)
    assert trainer.said(1) == ""
    return path


def same_network(a: Path, b: Path) -> None:
    """All weights within 1e-6, last and averaged, and what was said of every step."""
    ours, theirs = (load_file(max(run.glob("checkpoint-*.safetensors"))) for run in (a, b))
    names = [name for name in ours if name.startswith(("network/", "average/"))]
    assert len(names) > 20
    for name in names:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-6, msg=name)
    for x, y in zip(journal(a, "PhaseStarted"), journal(b, "PhaseStarted"), strict=True):
        assert x.get("step") == y.get("step")
        assert x["loss"] == pytest.approx(y["loss"], rel=1e-6)
        assert x["accuracy"] == pytest.approx(y["accuracy"], abs=1e-9)


def test_two_processes_find_what_one_finds(trainer: Trainer, whole: Path, tmp_path: Path) -> None:
    assert trainer.new(tmp_path / "run", world=1) == [0]
    same_network(tmp_path / "run", whole)
    start, end = new_network(toy_spec(QUADRA, QUADRA), 5).state_dict(), load_file(whole / "model.safetensors")
    assert max((start[name] - end[name]).abs().max() for name in end) > 0.01


def test_each_process_does_its_share(trainer: Trainer, whole: Path) -> None:
    """Two evaluations, of the last weights and of their average, on 359 images."""
    for rank, evaluated in enumerate((179, 180)):
        lines = Path(f"{trainer.folder / 'shares'}.{rank}").read_text().splitlines()
        assert lines == STEPS * ["step 8"] + 2 * [f"evaluated {evaluated}"]


def test_stopped_together_and_resumed(trainer: Trainer, whole: Path, tmp_path: Path) -> None:
    """A signal to rank 1 alone; then two processes go on to the identical bits, or one to the same network."""
    run, copy = tmp_path / "run", tmp_path / "copy"
    ask = (1, signal.SIGTERM, str(run / "journal.jsonl"), 3)
    assert trainer.new(run, signal=ask) == [143, 143]
    assert all(f"--resume {run}" in trainer.said(rank) for rank in range(2))
    checkpoint = RunFolder.open(run).latest()
    assert checkpoint
    assert 3 <= checkpoint.step == len(journal(run, "PhaseStarted")) < STEPS
    shutil.copytree(run, copy)
    assert trainer.run("train", "--resume", run) == [0, 0]
    assert outcome(run) == outcome(whole)
    assert trainer.run("train", "--resume", copy, world=1) == [0]
    same_network(copy, whole)


def test_a_process_that_dies_ends_all(trainer: Trainer, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ask = (1, signal.SIGKILL, str(run / "journal.jsonl"), 3)
    assert trainer.new(run, signal=ask) == [5, -9]
    (message,) = (line for line in trainer.said(0).splitlines() if line.startswith("quadnas: "))
    assert "process 0 of 2 lost the others (" in message
    assert ".cc:" not in message
    assert "--resume" in message
    assert trainer.run("train", "--resume", run) == [0, 0]
    assert outcome(run) == outcome(whole)


def test_what_one_process_finds_wrong_ends_all(trainer: Trainer, whole: Path) -> None:
    """Rank 0 alone sees that the folder is taken, or that another holds its lock."""
    before = outcome(whole)
    assert trainer.new(whole) == [2, 5]
    assert f"{whole} already holds a run" in trainer.said(0)
    with RunFolder.open(whole):
        assert trainer.run("train", "--resume", whole) == [5, -signal.SIGTERM]
    assert f"in use by process {os.getpid()}" in trainer.said(0)
    assert outcome(whole) == before


def test_what_cannot_be_shared_is_refused(trainer: Trainer, tmp_path: Path) -> None:
    run, odd = tmp_path / "run", tmp_path / "odd.yaml"
    odd.write_text("recipe: {batch_size: 15}")
    assert trainer.run("train", trainer.model, "--config", odd, "--out", run) == [2, 2]
    assert "15 images cannot be divided among 2 processes" in trainer.said(0)
    assert not run.exists()
    normalized = tmp_path / "normalized.yaml"
    normalized.write_text(write_yaml(toy_spec(QUADRA, MBCONV)))
    assert trainer.run("train", normalized, "--config", trainer.config, "--out", run) == [5, 5]
    assert "batch normalisation" in trainer.said(0)
    assert not run.exists()
    assert trainer.run("compare", odd) == [2, 2]
    assert "quadnas compare runs in one process" in trainer.said(0)


PARTING = """
import gc
import os
import torch
from torch import nn
from quadnas.training.distributed import joined

def train(ranks):
    network = ranks.parallel(nn.Linear(2, 1))
    network(torch.ones(1, 2)).sum().backward()
    network.cycle = [network]

gc.disable()
with joined() as ranks:
    train(ranks)
    assert ranks.world == 2
print(*(open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="lists threads as Linux has them")
def test_no_thread_of_the_group_is_left_when_it_has_parted() -> None:
    """One that still runs when the interpreter ends can abort it (exit -6), and torchrun then ends the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        said = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "test"}
        said |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **{key: str(said[key]) for key in said}}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", PARTING], env=environment, stdout=subprocess.PIPE, text=True
            )
        )
    left = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all("python" in threads and "gloo" not in threads for threads in left), left


def test_torchrun(trainer: Trainer, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
        "-m", "quadnas.cli", "train", trainer.model, "--config", trainer.config, "--out", run, "--json",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == str(run)
    assert outcome(run) == outcome(whole)
