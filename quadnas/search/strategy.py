"""The contract of a search strategy, and the registry through which it is found by name."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quadnas.data.base import Batch
from quadnas.data.order import stable_seed
from quadnas.errors import ConfigError
from quadnas.registry import Registry
from quadnas.search.problem import Problem
from quadnas.search.settings import SearchSettings
from quadnas.supernet.supernet import Supernet
from quadnas.training.distributed import ALONE, Ranks
from quadnas.training.loop import Criterion, Loss, step_generator


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
    ``fits(choices)``: whether an architecture is within them; ``samples``: architectures within them, drawn
    uniformly, without end; ``held_out_loss(choices)``: the mean cross-entropy of an architecture with the
    supernet's weights on held-out images (``selection.held_out_loss`` says what it costs).
    """

    derive: Callable[[NDArray[np.float64]], tuple[int, ...]]
    fits: Callable[[Sequence[int]], bool]
    samples: Iterator[tuple[int, ...]]
    held_out_loss: Callable[[Sequence[int]], float]
    generator: torch.Generator


@dataclass(frozen=True, slots=True)
class Moment:
    """The weight step that is to be made: its ``number`` from 0, whether the search warms up, and its ``seed``."""

    number: int
    warming_up: bool = False
    seed: int = 0

    def generator(self) -> torch.Generator:
        """What is random in this step; the same for every piece of its batch."""
        return step_generator(self.seed, "path", self.number)


class Strategy(ABC):
    """Finds the architecture of a problem. One that is no more than this trains nothing before it chooses.

    What a strategy does is a function of its state and of the moments and generators it is given. Its budget is
    counted in forward and backward passes of one path on one batch.
    """

    descends: ClassVar[bool] = False
    """Whether it descends on a loss that a published latency term (the settings' ``latency_loss``) can enter."""

    @abstractmethod
    def __init__(self, problem: Problem) -> None: ...

    @abstractmethod
    def choose(self, selection: Selection) -> tuple[int, ...]:
        """The architecture that the search found."""


class OneShot(Strategy):
    """Trains a supernet, whose weights the chosen architecture inherits; ``losses`` makes every weight step."""

    supernet: Supernet
    """All weights; the loop's optimiser updates them."""
    ranks: Ranks = ALONE
    """Who shares every batch: what a strategy learns from its part, it averages over them, so that all agree."""

    @abstractmethod
    def losses(self, batch: Batch, criterion: Criterion, moment: Moment) -> Iterator[Loss]:
        """The losses of one weight step, each of which is propagated backward before the next is asked for."""


class ArchitectureLearner(OneShot):
    """Learns which candidate each slot should hold while the weights train.

    The loop calls ``update_architecture`` after some of the weight steps.
    """

    @abstractmethod
    def update_architecture(
        self, held_out: Iterator[Batch], generator: torch.Generator, loss: ArchitectureLoss
    ) -> ArchitectureUpdate:
        """Change the architecture parameters, not the weights, by one batch of the held-out split or by none.

        A strategy takes a batch every time or never: a resumed run goes on where that many have been taken.
        """

    def hold(self) -> tuple[float, ...] | None:
        """Keep the expected costs of the distribution within the limits, until the next architecture step.

        The multiplier of every limit, 0 where it does not bind; None from a strategy that has none.
        """
        return None

    @abstractmethod
    def probabilities(self) -> NDArray[np.float64]:
        """(slots, most candidates): the current distribution per slot, 0 where there is no candidate."""

    @abstractmethod
    def scores(self) -> NDArray[np.float64]:
        """(slots, most candidates): what the knapsack adds up, higher is better."""

    def gains(self) -> tuple[Tensor, Tensor] | None:
        """Measured gains and their standard errors, (slots, most candidates) each, if the strategy measures them.

        A gain is how much lower the loss is with a candidate than on the average of its slot's candidates.
        """
        return None

    def choose(self, selection: Selection) -> tuple[int, ...]:
        """What the knapsack makes of the scores."""
        return selection.derive(self.scores())

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything beside the supernet's weights that a resumed run needs, as copies or references."""

    @abstractmethod
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state`` gave."""


STRATEGIES: Registry[type[Strategy]] = Registry("strategy", "quadnas.search.strategies", "quadnas.strategies")


def check_strategy(settings: SearchSettings) -> None:
    """Raise ConfigError if there is no such strategy, or if it has no use for the latency loss."""
    strategy = STRATEGIES[settings.strategy]
    if settings.latency_loss != "multiplier" and not strategy.descends:
        able = ", ".join(name for name in STRATEGIES if STRATEGIES[name].descends)
        raise ConfigError(
            f"latency_loss {settings.latency_loss} would change nothing, as strategy {settings.strategy} does not "
            f"descend on a loss; use multiplier, or one of the strategies {able}"
        )


def new_strategy(problem: Problem) -> Strategy:
    """The strategy that the problem's settings name, the same for the same seed; raises ConfigError."""
    with torch.random.fork_rng():
        torch.manual_seed(stable_seed("initialisation", problem.settings.seed))
        return STRATEGIES[problem.settings.strategy](problem)
