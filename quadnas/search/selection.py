"""Networks with the supernet's weights, and what they offer a strategy that chooses among them."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quadnas.data.base import DataSet, Split
from quadnas.data.order import stable_seed
from quadnas.network import Network
from quadnas.run.events import Compared
from quadnas.run.session import Session
from quadnas.search.constraint import derive, raised
from quadnas.search.paths import feasible_paths
from quadnas.search.problem import Problem
from quadnas.search.strategy import OneShot, Selection, Strategy
from quadnas.supernet.supernet import Supernet
from quadnas.training.batch_norm import recompute_statistics
from quadnas.training.distributed import ALONE, Ranks
from quadnas.training.evaluation import evaluate
from quadnas.training.loop import step_generator

HELD_OUT_IMAGES = 2048
STATISTICS_BATCHES = 10


def inherited(
    problem: Problem,
    training: Split,
    train_size: int,
    device: torch.device,
    strategy: Strategy,
    choices: Sequence[int],
    session: Session,
) -> Network:
    """The plain network of an architecture with the supernet's weights and normalisation statistics of its own.

    Without a supernet its weights are fresh, the same for the same seed.
    """
    settings = problem.settings
    with torch.random.fork_rng():
        torch.manual_seed(stable_seed("initialisation", settings.seed))
        network = Network(problem.space.layers(choices, problem.classes)).to(device)
    if isinstance(strategy, OneShot):
        strategy.supernet.inherit(network, choices)
        recompute_statistics(
            network,
            training,
            batch_size=settings.recipe.batch_size,
            size=train_size,
            seed=settings.seed,
            after_batch=session.batch_evaluated,
        )
    return network


class _Path(nn.Module):
    """A subnet where it lies in its supernet, so that comparing it builds and copies nothing."""

    def __init__(self, supernet: Supernet, choices: Sequence[int]) -> None:
        super().__init__()
        self._supernet, self._choices = supernet, choices

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, classes)."""
        logits: Tensor = self._supernet(images, self._choices)
        return logits


def held_out_loss(
    problem: Problem,
    data: DataSet,
    train_size: int,
    strategy: Strategy,
    session: Session,
    ranks: Ranks = ALONE,
) -> Callable[[Sequence[int]], float]:
    """The mean cross-entropy of an architecture with the weights of the strategy's supernet on held-out images.

    Those are ``HELD_OUT_IMAGES`` of the held-out split, the same every time and drawn by class: the loss of one
    image differs between two architectures with a standard deviation of about 0.12 (``quadranet_xs``,
    Fashion-MNIST), that of so many by 0.003, a tenth of the spread of random architectures. Statistics of batch
    normalisation are those of ``STATISTICS_BATCHES`` training batches, with losses 0.001 off those with fifty.
    In budget units, a forward pass being a third of one: images / batch size / 3, with batch normalisation 3 more;
    for batches of 64 no more than 14. The ``ranks`` share the images and all get the same.
    """
    settings = problem.settings
    held_out = data.held_out.subset(torch.arange(min(HELD_OUT_IMAGES, len(data.held_out))))

    def loss(choices: Sequence[int]) -> float:
        assert isinstance(strategy, OneShot)
        path = _Path(strategy.supernet, choices)
        recompute_statistics(
            path,
            data.train,
            batch_size=settings.recipe.batch_size,
            size=train_size,
            seed=settings.seed,
            batches=STATISTICS_BATCHES,
            after_batch=session.batch_evaluated,
        )
        score = evaluate(path, held_out, size=train_size, after_batch=session.batch_evaluated, ranks=ranks)
        found = score.loss
        session.emit(Compared(str(problem.space.architecture(choices)), found))
        return found

    return loss


def selection(problem: Problem, held_out_loss: Callable[[Sequence[int]], float]) -> Selection:
    """What a strategy may ask when it chooses under the limits of a problem."""
    generator = step_generator(problem.settings.seed, "selection", 0)

    def derived(scores: NDArray[np.float64]) -> tuple[int, ...]:
        return derive(scores, problem.limits)

    def samples() -> Iterator[tuple[int, ...]]:
        priced = problem.priced
        start = derived(torch.rand(priced.shape, dtype=torch.float64, generator=generator).numpy())
        # the chain adds up prices, which can be dearer than the whole network
        budgets = [(limit.costs, raised(limit, start)) for limit in problem.limits]

        def within(path: Sequence[int]) -> bool:
            return all(table.of(path) <= budget for table, budget in budgets)

        drawn = feasible_paths(priced, within, start, generator)
        yield from filter(problem.fits, drawn)

    return Selection(derived, problem.fits, samples(), held_out_loss, generator)
