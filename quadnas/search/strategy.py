"""The contract of a search strategy, and the registry through which it is found by name."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quadnas.data.base import Batch
from quadnas.network import Network
from quadnas.registry import Registry
from quadnas.search.problem import Problem
from quadnas.training.loop import Criterion, Loss


@dataclass(frozen=True, slots=True)
class ArchitectureUpdate:
    """What an architecture step saw: task loss and fraction correct on its batch."""

    loss: float
    accuracy: float


ArchitectureLoss = Callable[[Tensor, Tensor], Tensor]
"""Task loss () and probabilities (slots, most candidates) -> the loss () with its latency term, differentiable."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a strategy may ask when it chooses the architecture in the end.

    ``derive(scores)``: the architecture within all limits whose scores (slots, most candidates) add up to most;
    ``fits(choices)``: whether an architecture is within them; ``held_out_loss(choices)``: the mean cross-entropy
    of an architecture with the supernet's weights on the held-out split.
    """

    derive: Callable[[NDArray[np.float64]], tuple[int, ...]]
    fits: Callable[[Sequence[int]], bool]
    held_out_loss: Callable[[Sequence[int]], float]
    generator: torch.Generator


class Strategy(ABC):
    """Trains a supernet and learns which candidate each slot should hold.

    The loop calls ``losses`` for every weight step, ``update_architecture`` after some of them and ``choose`` in
    the end; what a strategy does is a function of its state and the generators it is given. Its budget is counted
    in forward and backward passes of one path on one batch.
    """

    supernet: nn.Module
    """All weights; the loop's optimiser updates them."""

    @abstractmethod
    def __init__(self, problem: Problem) -> None: ...

    @abstractmethod
    def losses(
        self, batch: Batch, criterion: Criterion, generator: torch.Generator, *, warming_up: bool
    ) -> Iterator[Loss]:
        """The losses of one weight step, each of which is propagated backward before the next is asked for."""

    @abstractmethod
    def update_architecture(
        self, held_out: Iterator[Batch], generator: torch.Generator, loss: ArchitectureLoss
    ) -> ArchitectureUpdate:
        """Change the architecture parameters, not the weights, by one batch of the held-out split or by none.

        A strategy takes a batch every time or never: a resumed run goes on where that many have been taken.
        """

    @abstractmethod
    def probabilities(self) -> NDArray[np.float64]:
        """(slots, most candidates): the current distribution per slot, 0 where there is no candidate."""

    @abstractmethod
    def scores(self) -> NDArray[np.float64]:
        """(slots, most candidates): what the knapsack adds up, higher is better."""

    def choose(self, selection: Selection) -> tuple[int, ...]:
        """The architecture that the search found. Default: what the knapsack makes of the scores."""
        return selection.derive(self.scores())

    @abstractmethod
    def inherit(self, network: Network, choices: Sequence[int]) -> None:
        """Copy the weights of an architecture from the supernet into the plain network."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything beside the supernet's weights that a resumed run needs, as copies or references."""

    @abstractmethod
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state`` gave."""


STRATEGIES: Registry[type[Strategy]] = Registry("strategy", "quadnas.search.strategies", "quadnas.strategies")
