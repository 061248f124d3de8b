"""Networks with the supernet's weights, and what they offer a strategy that chooses among them."""

from collections.abc import Sequence

import torch

from quadnas.data.base import DataSet, Split
from quadnas.network import Network
from quadnas.run.session import Session
from quadnas.search.constraint import derive
from quadnas.search.problem import Problem
from quadnas.search.strategy import Selection, Strategy
from quadnas.training.batch_norm import recompute_statistics
from quadnas.training.evaluation import evaluate
from quadnas.training.loop import step_generator


def inherited(
    problem: Problem,
    training: Split,
    train_size: int,
    device: torch.device,
    strategy: Strategy,
    choices: Sequence[int],
) -> Network:
    """The plain network of an architecture with the supernet's weights and normalisation statistics of its own."""
    network = Network(problem.space.layers(choices, problem.classes)).to(device)
    strategy.inherit(network, choices)
    settings = problem.settings
    recompute_statistics(
        network, training, batch_size=settings.recipe.batch_size, size=train_size, seed=settings.seed
    )
    return network


def selection(
    problem: Problem,
    data: DataSet,
    train_size: int,
    device: torch.device,
    strategy: Strategy,
    session: Session,
) -> Selection:
    """What ``strategy`` may ask about a problem whose supernet it has trained."""

    def held_out_loss(choices: Sequence[int]) -> float:
        network = inherited(problem, data.train, train_size, device, strategy, choices)
        return evaluate(network, data.held_out, size=train_size, after_batch=session.batch_evaluated).loss

    return Selection(
        derive=lambda scores: derive(scores, problem.bounds, problem.limit_ms, problem.bound_ms),
        fits=lambda choices: problem.bound_ms(choices) <= problem.limit_ms,
        held_out_loss=held_out_loss,
        generator=step_generator(problem.settings.seed, "selection", 0),
    )
