"""Conformance checks for a search strategy; each raises AssertionError."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from quadnas.data.base import Batch
from quadnas.network import Network
from quadnas.search.problem import Problem
from quadnas.search.selection import selection
from quadnas.search.strategy import ArchitectureLearner, Moment, OneShot, Strategy


def check_strategy(make: Callable[[], Strategy], problem: Problem, batch: Batch) -> None:
    """What every strategy keeps, and what those keep that train a supernet or learn an architecture.

    ``make`` gives a strategy for ``problem`` in the same initial state every time.
    """
    strategy = make()
    if isinstance(strategy, OneShot):
        for warming_up in (True, False):
            _train(strategy, batch, problem.classes, warming_up=warming_up)
        strategy.supernet.zero_grad()
        _check_inheritance(strategy, problem, batch)
    if isinstance(strategy, ArchitectureLearner):
        _check_learning(strategy, problem, batch)
        _check_resuming(strategy, make, batch)
    _check_choice(strategy, problem)


def _check_learning(strategy: ArchitectureLearner, problem: Problem, batch: Batch) -> None:
    """Shapes, and no weight moved by an architecture step."""
    priced = problem.priced.numpy()
    weights = {name: value.clone() for name, value in strategy.supernet.state_dict().items()}
    _advance(strategy, batch, range(3))
    for name, value in strategy.supernet.state_dict().items():
        assert torch.equal(value, weights[name]), f"an architecture step moved {name}"

    probabilities, scores = strategy.probabilities(), strategy.scores()
    assert probabilities.shape == scores.shape == priced.shape
    assert np.allclose(probabilities.sum(axis=1), 1), "probabilities of a slot add up to 1"
    assert (probabilities[~priced] == 0).all(), "a candidate without a price has a probability"
    assert np.isfinite(scores[priced]).all()


def _train(strategy: OneShot, batch: Batch, classes: int, *, warming_up: bool) -> None:
    count = 0
    for count, loss in enumerate(  # noqa: B007
        strategy.losses(batch, F.cross_entropy, Moment(0, warming_up=warming_up)), 1
    ):
        assert loss.logits.shape == (len(batch.images), classes), loss.logits.shape
        assert loss.value.requires_grad, "a weight step has nothing to train"
        loss.value.backward()
    assert count, "a weight step has no loss"
    assert any(parameter.grad is not None for parameter in strategy.supernet.parameters())


def _check_resuming(strategy: ArchitectureLearner, make: Callable[[], Strategy], batch: Batch) -> None:
    other = make()
    assert isinstance(other, ArchitectureLearner)
    other.supernet.load_state_dict(strategy.supernet.state_dict())
    other.load_state({name: value.clone() for name, value in strategy.state().items()})
    for one in (strategy, other):
        _advance(one, batch, range(3, 6))
    assert np.array_equal(strategy.probabilities(), other.probabilities()), "the state forgets something"


def _check_inheritance(strategy: OneShot, problem: Problem, batch: Batch) -> None:
    choices = problem.priced.double().argmax(1).tolist()
    network = Network(problem.space.layers(choices, problem.classes))
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    strategy.supernet.inherit(network, choices)
    changed = [name for name, value in network.state_dict().items() if not torch.equal(value, fresh[name])]
    assert changed, "the network inherits no weights"
    assert network(batch.images).shape == (len(batch.images), problem.classes)


def _check_choice(strategy: Strategy, problem: Problem) -> None:
    """Within the limit, and the same when an interrupted choice starts again."""

    def loss(choices: Sequence[int]) -> float:
        return float(sum(choices))

    first, second = (strategy.choose(selection(problem, loss)) for _ in range(2))
    assert first == second, "the choice is no function of the state and the generator"
    assert problem.bound_ms(first) <= problem.limit_ms, "the architecture is above the limit"


def _advance(strategy: ArchitectureLearner, batch: Batch, seeds: range) -> None:
    for seed in seeds:
        strategy.update_architecture(iter([batch]), _generator(seed), lambda task, p: task + p.square().sum())


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
