"""Conformance checks for a search strategy; each raises AssertionError."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from quadnas.data.base import Batch
from quadnas.network import Network
from quadnas.search.problem import Problem
from quadnas.search.strategy import Strategy


def check_strategy(make: Callable[[], Strategy], problem: Problem, batch: Batch) -> None:
    """Shapes, a resumable state, no weight moved by an architecture step, and faithful inheritance.

    ``make`` gives a strategy for ``problem`` in the same initial state every time.
    """
    priced = problem.bounds.priced.numpy()
    strategy = make()
    for warming_up in (True, False):
        _train(strategy, batch, problem.classes, warming_up=warming_up)
    strategy.supernet.zero_grad()

    weights = {name: value.clone() for name, value in strategy.supernet.state_dict().items()}
    _advance(strategy, batch, range(3))
    for name, value in strategy.supernet.state_dict().items():
        assert torch.equal(value, weights[name]), f"an architecture step moved {name}"

    probabilities, scores = strategy.probabilities(), strategy.scores()
    assert probabilities.shape == scores.shape == priced.shape
    assert np.allclose(probabilities.sum(axis=1), 1), "probabilities of a slot add up to 1"
    assert (probabilities[~priced] == 0).all(), "a candidate without a price has a probability"
    assert np.isfinite(scores[priced]).all()
    _check_resuming(strategy, make, batch)
    _check_inheritance(strategy, problem, batch)


def _train(strategy: Strategy, batch: Batch, classes: int, *, warming_up: bool) -> None:
    count = 0
    for count, loss in enumerate(  # noqa: B007
        strategy.losses(batch, F.cross_entropy, _generator(0), warming_up=warming_up), 1
    ):
        assert loss.logits.shape == (len(batch.images), classes), loss.logits.shape
        assert loss.value.requires_grad, "a weight step has nothing to train"
        loss.value.backward()
    assert count, "a weight step has no loss"
    assert any(parameter.grad is not None for parameter in strategy.supernet.parameters())


def _check_resuming(strategy: Strategy, make: Callable[[], Strategy], batch: Batch) -> None:
    other = make()
    other.supernet.load_state_dict(strategy.supernet.state_dict())
    other.load_state({name: value.clone() for name, value in strategy.state().items()})
    for one in (strategy, other):
        _advance(one, batch, range(3, 6))
    assert np.array_equal(strategy.probabilities(), other.probabilities()), "the state forgets something"


def _check_inheritance(strategy: Strategy, problem: Problem, batch: Batch) -> None:
    choices = strategy.probabilities().argmax(axis=1).tolist()
    network = Network(problem.space.layers(choices, problem.classes))
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    strategy.inherit(network, choices)
    changed = [name for name, value in network.state_dict().items() if not torch.equal(value, fresh[name])]
    assert changed, "the network inherits no weights"
    assert network(batch.images).shape == (len(batch.images), problem.classes)


def _advance(strategy: Strategy, batch: Batch, seeds: range) -> None:
    for seed in seeds:
        strategy.update_architecture(iter([batch]), _generator(seed), lambda task, p: task + p.square().sum())


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
