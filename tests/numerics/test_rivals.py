"""The largest that fits, random search and evolution, against enumeration, closed forms and laws of chance."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quadnas.data.base import Batch
from quadnas.search.constraint import GRID
from quadnas.search.paths import candidate_macs, extreme_paths
from quadnas.search.problem import Problem
from quadnas.search.selection import selection
from quadnas.search.strategies.evolution import CHILDREN, POPULATION, Evolution
from quadnas.search.strategies.largest_fit import LargestFit
from quadnas.search.strategies.random_search import DRAWS, RandomSearch
from quadnas.search.strategy import Moment, OneShot
from tests.toy import toy_problem, toy_space

Path = tuple[int, ...]
EVERYTHING = list(itertools.product(range(7), repeat=4))
SMALLEST = (6, 6, 6, 6)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_limit(share: float, seed: int = 0) -> Problem:
    """The toy problem with that share of its 2401 architectures within the limit."""
    bounds = toy_problem().bounds
    return toy_problem(float(np.quantile([bounds.of(path) for path in EVERYTHING], share)), seed=seed)


class Additive:
    """A held-out loss that is a sum over slots, of which the answer is known; counts what it was asked for."""

    def __init__(self, slots: int, seed: int = 0) -> None:
        self._losses = np.random.default_rng(seed).normal(size=(slots, 7))
        self.asked: list[Path] = []

    def of(self, path: Sequence[int]) -> float:
        return float(sum(row[choice] for row, choice in zip(self._losses, path, strict=True)))

    def __call__(self, path: Sequence[int]) -> float:
        self.asked.append(tuple(path))
        return self.of(path)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.9, 1.0])
def test_largest_is_that_of_enumeration(share: float) -> None:
    """Costs are rounded up to a grid: what the last thousandths of the limit would add may be missed."""
    problem = with_limit(share)
    macs = candidate_macs(problem)

    def size(path: Sequence[int]) -> float:
        return float(macs[np.arange(4), list(path)].sum())

    def best(limit_ms: float) -> float:
        return max(size(path) for path in EVERYTHING if problem.bounds.of(path) <= limit_ms)

    found = LargestFit(problem).choose(selection(problem, lambda _: 0.0))
    assert problem.bound_ms(found) <= problem.limit_ms
    spare_ms = problem.limit_ms - problem.bounds.of(SMALLEST)
    assert best(problem.limit_ms - 4 * spare_ms / GRID) <= size(found) <= best(problem.limit_ms)


def searched(make: Callable[[Problem], OneShot], problem: Problem, loss: Additive) -> Path:
    found = make(problem).choose(selection(problem, loss))
    assert loss.of(found) == min(map(loss.of, loss.asked))
    assert len(loss.asked) == len(set(loss.asked)), "an architecture was compared twice"
    assert all(problem.bounds.of(path) <= problem.limit_ms for path in loss.asked)
    return found


def test_random_search_finds_its_expected_quantile() -> None:
    """The lowest of n uniform ranks has the mean 1/(n + 1) and about the same standard deviation."""
    quantiles = []
    for seed in range(8):
        problem, loss = with_limit(0.6, seed), Additive(4, seed)
        found = searched(RandomSearch, problem, loss)
        # DRAWS with replacement out of 1441: about 13 come twice
        assert DRAWS - 35 < len(loss.asked) <= DRAWS
        ranks = [loss.of(path) for path in EVERYTHING if problem.bounds.of(path) <= problem.limit_ms]
        quantiles.append(np.mean([value < loss.of(found) for value in ranks]))
    expected = 1 / (DRAWS + 1)
    assert np.mean(quantiles) == pytest.approx(expected, abs=4 * expected / np.sqrt(8))


def test_evolution_finds_what_enumeration_finds() -> None:
    """In 200 of 1441: by chance alone one search in seven would."""
    hits = 0
    for seed in range(6):
        problem, loss = with_limit(0.6, seed), Additive(4, seed)
        found = searched(Evolution, problem, loss)
        assert len(loss.asked) <= POPULATION + CHILDREN
        ranks = sorted(loss.of(path) for path in EVERYTHING if problem.bounds.of(path) <= problem.limit_ms)
        hits += loss.of(found) == pytest.approx(ranks[0])
        assert loss.of(found) <= ranks[7], "not among the best half per cent"
    assert hits >= 4


def test_evolution_beats_random_search_at_equal_comparisons() -> None:
    """In a space too large to sample: 7^9 architectures."""
    wins = 0
    space = toy_space(channels=(8, 16, 24), depths=(3, 3, 3))
    low, high = map(toy_problem(space=space).bounds.of, ([6] * 9, [5] * 9))
    for seed in range(3):
        problem, loss = toy_problem(low + 0.4 * (high - low), space, seed=seed), Additive(9, seed)
        by_evolution, by_chance = (
            searched(make, problem, Additive(9, seed)) for make in (Evolution, RandomSearch)
        )
        wins += loss.of(by_evolution) < loss.of(by_chance)
    assert wins == 3


def test_a_space_with_one_feasible_architecture_ends() -> None:
    problem = toy_problem(toy_problem().bounds.of(SMALLEST))
    for make in (Evolution, RandomSearch):
        loss = Additive(4)
        assert searched(make, problem, loss) == SMALLEST
        assert len(loss.asked) == 1


class Answers(torch.nn.Module):
    """In a supernet's place: every path answers with a parameter of its own (images, classes)."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[Path] = []
        self.logits: list[Tensor] = []

    def forward(self, images: Tensor, path: Sequence[int]) -> Tensor:
        self.paths.append(tuple(path))
        logits = torch.randn(len(images), 10, dtype=torch.float64, generator=generator(len(self.paths)))
        self.logits.append(logits.requires_grad_())
        return self.logits[-1]


def sandwich(steps: int = 1) -> tuple[Evolution, Answers, Batch]:
    """The strategy after so many weight steps, each loss propagated before the next is asked for."""
    torch.manual_seed(0)
    search = Evolution(toy_problem())
    answers = Answers()
    search.supernet = answers  # type: ignore[assignment]
    batch = Batch(torch.zeros(5, 3, 8, 8), torch.tensor([1, 0, 9, 4, 4]))
    for seed in range(steps):
        for loss in search.losses(batch, F.cross_entropy, Moment(seed)):
            loss.value.backward()
    return search, answers, batch


def test_the_largest_learns_the_labels_and_the_others_what_it_answers() -> None:
    """Softmax minus target, per image: one-hot for the largest, its softmax for the others."""
    _, answers, batch = sandwich()
    largest, *others = answers.logits
    teacher = largest.detach().softmax(1)
    targets = [F.one_hot(batch.labels, 10).double(), teacher, teacher, teacher]
    for logits, target in zip(answers.logits, targets, strict=True):
        expected = (logits.detach().softmax(1) - target) / len(batch.labels)
        assert logits.grad is not None
        torch.testing.assert_close(logits.grad, expected, rtol=1e-12, atol=1e-15)
    assert len(others) == 3


def test_a_sandwich_is_the_largest_the_smallest_and_two_uniform_paths() -> None:
    steps = 700
    _, answers, _ = sandwich(steps)
    largest, smallest = extreme_paths(toy_problem())
    by_place = [answers.paths[place::4] for place in range(4)]
    assert set(by_place[0]) == {largest}
    assert set(by_place[1]) == {smallest}
    drawn = by_place[2] + by_place[3]
    for slot in range(4):
        counts = Counter(path[slot] for path in drawn)
        # 200 expected per candidate, standard deviation 13
        assert all(abs(counts[choice] - 200) < 5 * 13 for choice in range(7))


def test_random_search_trains_one_uniform_path_per_step() -> None:
    torch.manual_seed(0)
    search = RandomSearch(toy_problem())
    answers = Answers()
    search.supernet = answers  # type: ignore[assignment]
    batch = Batch(torch.zeros(2, 3, 8, 8), torch.tensor([1, 0]))
    for seed in range(1400):
        (loss,) = search.losses(batch, F.cross_entropy, Moment(seed, warming_up=seed < 700))
        assert torch.equal(loss.value, F.cross_entropy(answers.logits[-1], batch.labels))
    for slot in range(4):
        counts = Counter(path[slot] for path in answers.paths)
        assert all(abs(counts[choice] - 200) < 5 * 13 for choice in range(7))
