"""The searches that are compared on a ground truth: equal budgets, answers of the product, nothing done twice."""

from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from benchmarks.ground_truth.answers import SearchRow, SearchTable, chosen_networks
from benchmarks.ground_truth.plan import ANSWER_SEEDS, FINAL_SEEDS, Truth, limit_points, network_of
from benchmarks.ground_truth.rivals import RIVALS, Search, searches
from benchmarks.ground_truth.searches import Arena, search_all
from benchmarks.ground_truth.table import TruthTable
from benchmarks.ground_truth.training import open_workshop, work
from quadnas.errors import ConfigError
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.search import loop
from quadnas.search.settings import Schedule
from quadnas.search.strategies import evolution, random_search
from quadnas.search.work import prepare
from tests.benchmarks.truths import tiny_truth

BUDGET = Schedule(warmup_epochs=4, search_epochs=8, retrain_epochs=0)
STEPS_PER_EPOCH = 1  # 64 images, 51 of them not held out, in batches of 32


def truth_on_two_devices(folder: Path) -> Truth:
    """Three limits on the first device, of which the last holds back nothing."""
    return tiny_truth(folder, devices=("cortexA76", "myriadvpu"), limits=(0.25, 0.5, 1.1))


def shared(strategy: str, truth: Truth, *, ranks: bool = False) -> Search:
    """All limits at once."""
    return Search(strategy, 0, tuple(limit_points(truth)), ranks)


def without_seconds(row: SearchRow) -> SearchRow:
    """All that is the same every time."""
    answers = tuple(answer.model_copy(update={"seconds": 0.0}) for answer in row.answers)
    return row.model_copy(update={"seconds": 0.0, "answers": answers})


@pytest.fixture
def few_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the hundreds that random search and evolution make, enough to meet four networks."""
    monkeypatch.setattr(random_search, "DRAWS", 20)
    monkeypatch.setattr(evolution, "POPULATION", 8)
    monkeypatch.setattr(evolution, "CHILDREN", 4)


def test_every_strategy_answers_under_every_limit_once_per_seed_and_ranks_once(tmp_path: Path) -> None:
    truth = truth_on_two_devices(tmp_path)
    points = [("cortexA76", 0.25), ("cortexA76", 0.5), ("cortexA76", 1.1), ("myriadvpu", 0.5)]
    wanted = list(searches(truth, tuple(RIVALS), 3))
    assert len({search.key for search in wanted}) == len(wanted)
    for strategy in RIVALS:
        seeds = range(1 if strategy == "largest" else 3)
        own = [search for search in wanted if search.strategy == strategy]
        answered = Counter((search.seed, point) for search in own for point in search.points)
        assert answered == Counter((seed, point) for seed in seeds for point in points)
        ranked = [search.seed for search in own if search.ranks]
        assert ranked == ([] if strategy == "largest" else list(seeds))
        assert len(own) == len(seeds) * (4 if strategy == "proxyless" else 1)
    assert [search.seed for search in wanted] == sorted(search.seed for search in wanted)


@pytest.mark.parametrize(
    ("strategy", "steps"),
    [("random", 12), ("evolution", 12), ("swap", 12 + 8 / 6 / 3), ("proxyless", 12 + 4 * 4 / 3)],
)
@pytest.mark.usefixtures("few_comparisons")
def test_all_train_as_many_paths(tmp_path: Path, strategy: str, steps: float) -> None:
    truth = truth_on_two_devices(tmp_path)
    points = (("cortexA76", 0.5),)
    row = Arena(open_workshop(truth), BUDGET).run(Search(strategy, 0, points, ranks=False))
    assert row.path_steps == pytest.approx(steps * STEPS_PER_EPOCH, abs=0.05)
    assert row.losses == ()
    assert bool(row.scores) == (strategy in {"swap", "proxyless"})
    (answer,) = row.answers
    assert answer.bound_ms <= answer.limit_ms
    assert (answer.path_steps > 0) == (strategy in {"random", "evolution"}), "a knapsack compares nothing"


@pytest.mark.usefixtures("few_comparisons")
@pytest.mark.parametrize("strategy", [name for name, rival in RIVALS.items() if rival.supernet != "own"])
def test_a_shared_supernet_answers_as_the_product_does_under_each_limit_alone(
    tmp_path: Path, strategy: str
) -> None:
    truth = truth_on_two_devices(tmp_path)
    arena = Arena(open_workshop(truth), BUDGET)
    row = arena.run(shared(strategy, truth))
    assert [(answer.device, answer.share) for answer in row.answers] == limit_points(truth)
    for number, answer in enumerate(row.answers):
        (settings,) = arena.settings(Search(strategy, 0, ((answer.device, answer.share),), ranks=False))
        assert settings.max_latency_ms == answer.limit_ms
        with RunFolder.create(tmp_path / str(number), settings.model_dump(mode="json")) as folder:
            alone = loop.search(prepare(settings), folder, lambda _: None, StopFlag())
        assert alone.architecture == answer.architecture
        assert alone.bound_ms == pytest.approx(answer.bound_ms)
        assert alone.bound_ms <= answer.limit_ms


@pytest.mark.usefixtures("few_comparisons")
def test_the_ranking_is_what_random_search_chooses_by(tmp_path: Path) -> None:
    truth = truth_on_two_devices(tmp_path)
    arena = Arena(open_workshop(truth), BUDGET)
    row = arena.run(shared("random", truth, ranks=True))
    names = [str(arena.workshop.space.architecture(c)) for c in arena.workshop.architectures]
    assert len(row.losses) == len(set(row.losses)) == 4
    losses = dict(zip(names, row.losses, strict=True))
    unlimited = next(answer for answer in row.answers if answer.share == 1.1)
    assert unlimited.architecture == min(losses, key=losses.__getitem__), "all four networks were drawn"


def test_killed_searches_go_on_and_their_choices_are_trained_beside_the_finalists(tmp_path: Path) -> None:
    truth = truth_on_two_devices(tmp_path)
    path, whole = tmp_path / "searches.jsonl", tmp_path / "whole.jsonl"
    strategies, budget = ("swap", "largest"), Schedule(warmup_epochs=0, search_epochs=1, retrain_epochs=0)

    class KilledError(Exception):
        pass

    def kill(_: SearchRow) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        search_all(truth, path, strategies, 2, budget, kill)
    begun = path.read_bytes()
    search_all(truth, path, strategies, 2, budget)
    assert path.read_bytes().startswith(begun)
    search_all(truth, whole, strategies, 2, budget)
    rows = SearchTable(path).rows()
    assert [row.key for row in rows] == [("swap", 0, "cortexA76", 0.25), ("largest", 0, "cortexA76", 0.25),
                                         ("swap", 1, "cortexA76", 0.25)]  # fmt: skip
    assert list(map(without_seconds, rows)) == list(map(without_seconds, SearchTable(whole).rows()))
    with pytest.raises(ConfigError, match=r"searches of another kind [(]budget differ"):
        search_all(truth, path, strategies, 2, BUDGET)

    work(truth, tmp_path / "table.jsonl", path)
    trained = TruthTable(tmp_path / "table.jsonl").rows()
    workshop = open_workshop(truth)
    planned = [row for row in trained if row.seed not in FINAL_SEEDS]
    finalists = {network_of(workshop.space, training.choices) for training in workshop.final(planned)}
    chosen = {network_of(workshop.space, name) for name in chosen_networks(rows)} - finalists
    assert chosen, "some search chose what the fit does not lead to"
    late = [(network_of(workshop.space, row.architecture), row.seed) for row in trained[len(planned) :]]
    assert sorted(late) == sorted([*product(finalists, FINAL_SEEDS), *product(chosen, ANSWER_SEEDS)])
