"""Searches by comparison: the loss that is compared, whole runs, and a choice that is interrupted."""

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from quadnas.config import parse_yaml, read_settings, validated
from quadnas.data.base import load_data
from quadnas.errors import Interrupted
from quadnas.network import Network
from quadnas.run.events import Compared, Event
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.run.session import Session
from quadnas.search import loop
from quadnas.search.result import read_result
from quadnas.search.selection import HELD_OUT_IMAGES, STATISTICS_BATCHES, held_out_loss
from quadnas.search.settings import SearchSettings
from quadnas.search.strategies.random_search import RandomSearch
from quadnas.search.work import prepare
from quadnas.space.model_spec import ModelSpec
from quadnas.training.batch_norm import recompute_statistics
from quadnas.training.evaluation import evaluate
from quadnas.training.standalone import new_network
from tests.cli.command import TINY_SEARCH, TINY_SPACE, quadnas, write
from tests.reliability.runs import journal, outcome
from tests.toy import toy_problem, toy_space

NORMALISED = "[{block: quadra_bn, kernel: [3, 5], expansion: 2}, {block: identity}]"


class Stopping:
    """In a session's place: counts the batches, and is asked to stop at one of them."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.batches, self._stop_at = 0, stop_at
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def batch_evaluated(self) -> None:
        self.batches += 1
        if self.batches == self._stop_at:
            raise Interrupted("stopped", signal.SIGTERM)


@pytest.fixture(scope="module")
def data() -> Any:
    return load_data("digits", limit=800)


def shared_loss(data: Any, session: Stopping) -> tuple[RandomSearch, Callable[[Sequence[int]], float]]:
    torch.manual_seed(0)
    problem = toy_problem(space=toy_space(candidates=NORMALISED), formula=lambda _: 1.0)
    search = RandomSearch(problem)
    return search, held_out_loss(problem, data, 32, search, cast(Session, session))


def test_the_loss_is_that_of_the_plain_network_with_statistics_of_its_own(data: Any) -> None:
    """Whatever was compared before: a supernet's running statistics are one for all."""
    session = Stopping()
    search, loss = shared_loss(data, session)
    space = toy_space(candidates=NORMALISED)
    paths = [(0, 1, 2, 0), (1, 1, 1, 1), (2, 2, 0, 1)]
    losses = [loss(path) for path in paths]
    assert [loss(path) for path in reversed(paths)] == losses[::-1]
    texts = [str(space.architecture(path)) for path in paths]
    assert session.events[:3] == [Compared(text, found) for text, found in zip(texts, losses, strict=True)]
    for path, found in zip(paths, losses, strict=True):
        network = Network(space.layers(path, 10))
        search.supernet.inherit(network, path)
        recompute_statistics(network, data.train, batch_size=64, size=32, seed=0, batches=STATISTICS_BATCHES)
        assert len(data.held_out) <= HELD_OUT_IMAGES
        assert found == pytest.approx(evaluate(network, data.held_out, size=32).loss, rel=1e-5)


def test_a_large_split_is_compared_on_its_first_images(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quadnas.search.selection.HELD_OUT_IMAGES", 100)
    search, loss = shared_loss(data, Stopping())
    network = Network(toy_space(candidates=NORMALISED).layers((0, 1, 2, 0), 10))
    search.supernet.inherit(network, (0, 1, 2, 0))
    recompute_statistics(network, data.train, batch_size=64, size=32, seed=0, batches=STATISTICS_BATCHES)
    part = data.held_out.subset(torch.arange(100))
    assert loss((0, 1, 2, 0)) == pytest.approx(evaluate(network, part, size=32).loss, rel=1e-5)
    # ten digits, drawn by class
    assert max(abs((part.labels == digit).sum().item() - 10) for digit in range(10)) <= 1


@pytest.mark.parametrize("stop_at", range(1, STATISTICS_BATCHES + 2))
def test_a_comparison_stops_at_any_batch(data: Any, stop_at: int) -> None:
    """Of the statistics, and of the held-out images (160: one batch)."""
    session = Stopping(stop_at)
    _, loss = shared_loss(data, session)
    with pytest.raises(Interrupted):
        loss((0, 1, 2, 0))
    assert session.batches == stop_at


@pytest.fixture
def config(tmp_path: Path) -> Path:
    space = write(tmp_path / "tiny.yaml", TINY_SPACE)
    return write(tmp_path / "search.yaml", f"{TINY_SEARCH}space: {space}\n")


@pytest.mark.parametrize("strategy", ["random", "evolution"])
def test_a_search_by_comparison(strategy: str, config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    answer = quadnas("search", "--config", config, "--strategy", strategy, "--out", run, "--json")
    assert answer.json["latency_ms"] <= 3
    events = journal(run)
    phases = [event["phase"] for event in events if event["event"] == "PhaseStarted"]
    (first, *_) = (event["network"] for event in events if event["event"] == "Evaluated")
    assert first == "inherited"
    assert phases == ["warm-up", "search", "training"]
    assert not [event for event in events if event["event"] == "ArchitectureStep"]
    (derived,) = (event for event in events if event["event"] == "Derived")
    compared = [event for event in events if event["event"] == "Compared"]
    best = min(compared, key=lambda event: event["loss"])
    assert best["architecture"] == derived["architecture"]
    assert answer.err.count("architectures compared") == len(compared) // 25 > 0
    assert derived["architecture"] == answer.json["architecture"]
    likeliest = derived["unlimited_architecture"]
    assert (likeliest is None) == (derived["unlimited_ms"] is None)
    assert (run / "report.html").stat().st_size > 0
    why = quadnas("why", run, "--json").json
    losses = {event["architecture"]: event["loss"] for event in compared}
    assert {one["architecture"]: one["loss"] for one in why["compared"]} == losses
    assert [one["chosen"] for one in why["compared"]] == [True] + [False] * (len(losses) - 1)
    assert f"{len(losses)} networks were compared" in quadnas("why", run).out


def test_the_largest_trains_no_supernet_and_starts_from_fresh_weights(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    answer = quadnas("search", "--config", config, "--strategy", "largest", "--out", run, "--json")
    assert answer.json["latency_ms"] <= 3
    events = journal(run)
    assert {event["phase"] for event in events if "phase" in event} == {"training"}
    evaluated = [event["network"] for event in events if event["event"] == "Evaluated"]
    assert (evaluated[0], "inherited" in evaluated) == ("fresh", False)
    result = read_result(run / "result.json")
    assert result.files["fresh weights"] == "model.safetensors"
    (fresh_score,) = (event["accuracy"] for event in events if event.get("network") == "fresh")
    assert f"{fresh_score:.1%} with fresh weights)" in (run / "report.html").read_text()
    assert "inherited" not in answer.err + (run / "report.html").read_text()
    spec = validated(parse_yaml((run / "model.yaml").read_text(), "model"), ModelSpec, "model")
    fresh, start = new_network(spec, 0).state_dict(), load_file(run / "model.safetensors")
    assert fresh.keys() == start.keys()
    assert all(torch.equal(fresh[name], start[name]) for name in fresh)
    assert (run / "retrained.safetensors").exists()
    assert (run / "report.html").stat().st_size > 0


@pytest.mark.parametrize("strategy", ["random", "evolution"])
def test_an_interrupted_choice_starts_again_and_is_the_same(
    strategy: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read_settings(config, SearchSettings).model_copy(update={"strategy": strategy})
    work = prepare(settings)
    stored = json.loads(settings.model_dump_json())
    stop = StopFlag()

    def found(folder: RunFolder) -> dict[str, Any]:
        with folder:
            loop.search(work, folder, lambda _: None, stop)
        return outcome(folder.path)

    whole = found(RunFolder.create(tmp_path / "whole", stored))
    real, asked = held_out_loss, []

    def stopping(*arguments: Any) -> Callable[[Sequence[int]], float]:
        loss = real(*arguments)

        def counted(choices: Sequence[int]) -> float:
            asked.append(choices)
            stop.signal = signal.SIGTERM if len(asked) == 7 else None
            return loss(choices)

        return counted

    monkeypatch.setattr(loop, "held_out_loss", stopping)
    with pytest.raises(Interrupted, match="everything is committed"):
        found(RunFolder.create(tmp_path / "run", stored))
    assert len(asked) == 7
    stop.signal = None
    monkeypatch.setattr(loop, "held_out_loss", real)
    assert found(RunFolder.open(tmp_path / "run")) == whole
