"""The contract of a search strategy, and the registry through which it is found by name."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quadnas.data.base import Batch
from quadnas.network import Network
from quadnas.registry import Registry
from quadnas.search.problem import Problem


@dataclass(frozen=True, slots=True)
class ArchitectureUpdate:
    """What an architecture step saw: task loss and fraction correct on its batch."""

    loss: float
    accuracy: float


class Strategy(ABC):
    """Trains a supernet and learns which candidate each slot should hold.

    The loop calls ``logits`` for every weight step and ``update_architecture`` after some of them; what a
    strategy does is a function of its state and the generators it is given. Its budget is counted in forward
    and backward passes of one path on one batch.
    """

    supernet: nn.Module
    """All weights; the loop's optimiser updates them."""

    @abstractmethod
    def __init__(self, problem: Problem) -> None: ...

    @abstractmethod
    def logits(self, images: Tensor, generator: torch.Generator, *, warming_up: bool) -> Tensor:
        """(N, 3, H, W) -> logits (N, classes) of the path or paths that this weight step trains."""

    @abstractmethod
    def update_architecture(
        self, batch: Batch, generator: torch.Generator, multiplier: float
    ) -> ArchitectureUpdate:
        """Change the architecture parameters, not the weights, by one batch of the held-out split."""

    @abstractmethod
    def probabilities(self) -> NDArray[np.float64]:
        """(slots, most candidates): the current distribution per slot, 0 where there is no candidate."""

    @abstractmethod
    def scores(self) -> NDArray[np.float64]:
        """(slots, most candidates): what the knapsack adds up, higher is better."""

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
