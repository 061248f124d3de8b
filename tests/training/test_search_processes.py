"""Two processes that train one supernet (gloo): the weights, gains and architecture of one process."""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from quadnas.run.folder import RunFolder
from tests.cli.command import TINY_SPACE
from tests.reliability.runs import journal, outcome
from tests.training.test_processes import Trainer

STRATEGIES = ("swap", "proxyless", "proxyless_full", "proxyless_reinforce", "random", "evolution")
SCHEDULE = {"warmup_epochs": 1, "search_epochs": 2, "retrain_epochs": 0, "architecture_every": 2}
SETTINGS: dict[str, Any] = {
    "device": "cortexA76",
    "max_latency_ms": 3,
    "train_size": 32,
    "train_images": 160,
    "seed": 5,
    "checkpoint_seconds": 0.05,
}
RECIPE = {"batch_size": 32, "augmentation": {"mixup_alpha": 0.8}}


class Searcher(Trainer):
    """Runs quadnas search on a tiny space."""

    def search(self, run: Path, strategy: str = "swap", *, world: int = 2, **settings: Any) -> list[int]:
        """The exit statuses of a search from the start; ``signal`` as in ``processes``."""
        job = {"signal": settings.pop("signal")} if "signal" in settings else {}
        space, config = self.folder / "tiny.yaml", self.folder / "search.yaml"
        space.write_text(TINY_SPACE)
        given = {"space": str(space), "strategy": strategy, "schedule": SCHEDULE, "recipe": RECIPE}
        config.write_text(json.dumps(SETTINGS | given | settings))
        return self.run("search", "--config", config, "--out", run, "--json", world=world, **job)


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    searcher = Searcher(tmp_path_factory.mktemp("searches"))
    yield searcher
    searcher.close()


@pytest.fixture(scope="module")
def whole(searcher: Searcher) -> Path:
    """The run of two processes that nothing disturbed, retraining included; read it, never change it."""
    path = searcher.folder / "whole"
    assert searcher.search(path, schedule=SCHEDULE | {"retrain_epochs": 2}) == [0, 0], searcher.said(0)
    return path


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return load_file(max(run.glob("checkpoint-*.safetensors")))


def same_search(a: Path, b: Path) -> None:
    """The last commit within 1e-5 but for the optimisers' moments, what was said of it, and what was chosen."""
    ours, theirs = tensors(a), tensors(b)
    assert ours.keys() == theirs.keys()
    for name in (name for name in ours if "optimizer" not in name):
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5, msg=name)
    for x, y in zip(journal(a, "PhaseStarted"), journal(b, "PhaseStarted"), strict=True):
        assert x["event"] == y["event"]
        for name in ("loss", "probabilities", "argmax_ms"):
            if x.get(name) is not None:
                assert torch.tensor(x[name]).allclose(torch.tensor(y[name]), rtol=1e-4, atol=2e-5), (x, y)
    results = [json.loads((run / "result.json").read_text()) for run in (a, b)]
    assert results[0]["architecture"] == results[1]["architecture"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_find_what_one_finds(strategy: str, searcher: Searcher, tmp_path: Path) -> None:
    assert searcher.search(tmp_path / "two", strategy) == [0, 0], searcher.said(0) + searcher.said(1)
    assert searcher.said(1) == ""
    assert searcher.search(tmp_path / "one", strategy, world=1) == [0], searcher.said(0)
    same_search(tmp_path / "one", tmp_path / "two")


def test_stopped_together_and_resumed(searcher: Searcher, whole: Path, tmp_path: Path) -> None:
    """A signal to rank 1 alone, in the search, and later a kill: the identical bits come out."""
    stopped, killed = tmp_path / "stopped", tmp_path / "killed"
    full: dict[str, Any] = {"schedule": SCHEDULE | {"retrain_epochs": 2}}
    ask = (1, signal.SIGTERM, str(stopped / "journal.jsonl"), 7)
    assert searcher.search(stopped, signal=ask, **full) == [143, 143]
    checkpoint = RunFolder.open(stopped).latest()
    assert checkpoint
    assert checkpoint.state["stage"] == "supernet"
    shutil.copytree(stopped, killed)
    assert searcher.run("search", "--resume", stopped) == [0, 0]
    assert outcome(stopped) == outcome(whole)
    ask = (1, signal.SIGKILL, str(killed / "journal.jsonl"), 10)
    assert searcher.run("search", "--resume", killed, signal=ask) == [5, -9]
    assert searcher.run("search", "--resume", killed) == [0, 0]
    assert outcome(killed) == outcome(whole)


def test_batch_normalisation_is_refused(searcher: Searcher, tmp_path: Path) -> None:
    space = searcher.folder / "normalized.yaml"
    space.write_text(TINY_SPACE.replace("block: quadra,", "block: mbconv,"))
    assert searcher.search(tmp_path / "run", space=str(space)) == [5, 5]
    assert "batch normalisation" in searcher.said(0)
    assert not (tmp_path / "run").exists()
    assert searcher.search(tmp_path / "run", recipe={"batch_size": 33}) == [2, 2]
    assert "33 images cannot be divided among 2 processes" in searcher.said(0)
