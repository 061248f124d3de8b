"""What a search would have chosen without its limits, against enumeration of the whole space."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from quadnas.latency.kernels import Kernel
from quadnas.search.problem import Problem
from quadnas.search.selection import selection
from quadnas.search.strategies.evolution import Evolution
from quadnas.search.strategies.largest_fit import LargestFit
from quadnas.search.strategies.proxyless import Proxyless
from quadnas.search.strategies.random_search import RandomSearch
from quadnas.search.strategies.swap import Swap
from quadnas.search.strategy import Selection, Strategy
from quadnas.search.unlimited import Witness, additive_scores
from tests.toy import taps_ms, toy_problem

Losses = Callable[[Sequence[int]], float]


def whole_space(problem: Problem) -> list[tuple[int, ...]]:
    return list(product(*(row.nonzero()[:, 0].tolist() for row in problem.priced)))


def limited(share: float, **changes: object) -> Problem:
    """The toy space, whose latencies reach from the minimum to the maximum as ``share`` goes from 0 to 1."""
    low, high = toy_problem(**changes).bounds.range  # type: ignore[arg-type]
    return toy_problem(low + share * (high - low), **changes)  # type: ignore[arg-type]


def additive(problem: Problem, seed: int) -> tuple[NDArray[np.float64], Losses]:
    """Losses that are sums over the slots, and what every candidate takes off."""
    worth = np.random.default_rng(seed).normal(size=tuple(problem.priced.shape))
    return worth, lambda choices: 1.0 - float(worth[range(len(choices)), list(choices)].sum())


def witness(problem: Problem, loss: Losses) -> Witness:
    return Witness(problem, selection(problem, loss))


class Asking(Strategy):
    """Asks the knapsack with given scores."""

    def __init__(self, scores: NDArray[np.float64]) -> None:
        self.scores = scores

    def choose(self, selection: Selection) -> tuple[int, ...]:
        return selection.derive(self.scores)


def test_by_scores_it_is_the_best_of_the_whole_space() -> None:
    def unpriced_5x5(kernel: Kernel) -> float | None:
        return None if kernel.kernel == 5 else taps_ms(kernel)

    problem = limited(0.4, formula=unpriced_5x5)
    random = np.random.default_rng(0)
    for _ in range(20):
        scores = random.normal(size=tuple(problem.priced.shape))
        scores[:, 2:4] += 100  # 5x5, which has no price
        seen = witness(problem, lambda _: 0.0)
        chosen = Asking(scores).choose(seen.selection)
        assert problem.fits(chosen)
        best = max(whole_space(problem), key=lambda c: sum(scores[s, i] for s, i in enumerate(c)))
        assert seen.unlimited() == best


@pytest.mark.parametrize("kind", [LargestFit, RandomSearch, Swap])
def test_who_is_watched_chooses_the_same(kind: type[Strategy]) -> None:
    problem = limited(0.5, seed=3)
    _, loss = additive(problem, 3)
    torch.manual_seed(0)
    strategy = kind(problem)
    alone = strategy.choose(selection(problem, loss))
    assert strategy.choose(witness(problem, loss).selection) == alone


def test_of_probabilities_it_is_the_most_probable_and_of_sizes_the_dearest() -> None:
    problem = limited(0.3)
    torch.manual_seed(1)
    learned = Proxyless(problem)
    with torch.no_grad():
        learned.alpha.normal_()
    seen = witness(problem, lambda _: 0.0)
    learned.choose(seen.selection)
    assert seen.unlimited() == tuple(learned.probabilities().argmax(1).tolist())
    seen = witness(problem, lambda _: 0.0)
    LargestFit(problem).choose(seen.selection)
    assert problem.bound_ms(seen.unlimited() or ()) == pytest.approx(problem.bounds.range[1])


@pytest.mark.parametrize("kind", [RandomSearch, Evolution])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_by_comparisons_within_the_limit_the_best_beyond_it_is_found(
    kind: type[Strategy], share: float
) -> None:
    """Losses that add up over the slots can be told from networks that fit alone."""
    for seed in range(2):
        problem = limited(share, seed=seed)
        _, loss = additive(problem, seed)
        seen = witness(problem, loss)
        torch.manual_seed(0)
        kind(problem).choose(seen.selection)
        found, best = seen.unlimited(), min(whole_space(problem), key=loss)
        assert found is not None
        assert problem.fits(found) == problem.fits(best)
        assert loss(found) == pytest.approx(loss(best), abs=0.2)  # of a standard deviation of 2


def test_what_candidates_are_worth_is_told_through_noise() -> None:
    """With half of the variance chance, 200 networks: correlation with the truth, and none for one never seen."""
    problem = toy_problem()
    worth, loss = additive(problem, 5)
    worth[:, 6] = 0.0
    random = np.random.default_rng(5)
    networks = random.integers(0, 6, size=(200, 4))
    noise = random.normal(size=200) * np.std([loss(network) for network in networks])
    losses = [loss(network) + error for network, error in zip(networks, noise, strict=True)]
    scores = additive_scores([tuple(network) for network in networks.tolist()], losses, worth.shape)
    assert abs(scores[:, 6]).max() < 1e-12
    centred = worth[:, :6] - worth[:, :6].mean(1, keepdims=True)
    assert np.corrcoef(scores[:, :6].ravel(), centred.ravel())[0, 1] > 0.9


def test_candidates_that_no_limit_let_in_leave_it_open() -> None:
    """At 0.3 of the range no 7x7 fits in the first stage: that cheap ones are best among the rest says nothing."""

    def unlimited(share: float, loss: Losses) -> tuple[int, ...] | None:
        problem = limited(share)
        torch.manual_seed(0)
        seen = witness(problem, loss)
        assert seen.unlimited() is None  # nothing was asked
        RandomSearch(problem).choose(seen.selection)
        return seen.unlimited()

    ms = toy_problem().bound_ms
    assert unlimited(0.3, ms) is None
    assert unlimited(0.3, lambda choices: -ms(choices)) == (3, 3, 5, 5)  # dear, and none that was never seen
    assert unlimited(0.02, lambda choices: -ms(choices)) is None  # identity alone fits
    assert unlimited(0.5, ms) == (6, 6, 6, 6)
