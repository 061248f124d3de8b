"""ProxylessNAS with REINFORCE: sampled networks are rewarded for accuracy and speed.

Source: ProxylessNAS (arXiv 1812.00332) section 3.3.2 and the released code, with its constants.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from quadnas.data.base import Batch
from quadnas.search.gated import Gated
from quadnas.search.problem import Problem
from quadnas.search.strategy import STRATEGIES, ArchitectureLoss, ArchitectureUpdate
from quadnas.supernet.gates import frozen
from quadnas.training.loop import accuracy_of

NETWORKS = 10
BASELINE_RATE = 0.99
LATENCY_EXPONENT = 0.1


@STRATEGIES.register("proxyless_reinforce")
class ProxylessReinforce(Gated):
    """An architecture step costs ``NETWORKS`` paths forward on one batch. The reward has its latency term."""

    descends = False

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._limits = [limit for limit in problem.limits if limit.binds]
        self.baseline = torch.tensor(torch.nan, dtype=torch.float64)

    def update_architecture(
        self, held_out: Iterator[Batch], generator: torch.Generator, loss: ArchitectureLoss
    ) -> ArchitectureUpdate:
        """One step along the mean of (reward - baseline) grad log p(network).

        The baseline comes first: it goes ``BASELINE_RATE`` of the way to the mean reward of this step, where it
        starts.
        """
        batch = next(held_out)
        paths = torch.stack([self._draw(generator) for _ in range(NETWORKS)])
        with torch.no_grad(), frozen(self.supernet):
            logits = [self.supernet(batch.images, path.tolist()) for path in paths]
            task_loss = torch.stack([F.cross_entropy(own, batch.labels) for own in logits]).mean()
        accuracies = torch.stack([accuracy_of(own, batch) for own in logits])
        seen = self.ranks.mean(torch.cat([task_loss.double()[None], accuracies]).cpu())
        accuracies = seen[1:]
        rewards = accuracies * torch.tensor([self._speed(path) for path in paths], dtype=torch.float64)

        mean = rewards.mean()
        self.baseline = mean if self.baseline.isnan() else self.baseline.lerp(mean, BASELINE_RATE)
        log_probabilities = self._log_distribution().T.gather(0, paths).sum(1)
        self._descend(-((rewards - self.baseline) * log_probabilities).mean())
        return ArchitectureUpdate(seen[0].item(), accuracies.mean().item())

    def hold(self) -> None:
        """No multipliers: the reward holds latency."""

    def state(self) -> dict[str, Tensor]:
        """Architecture parameters, their optimiser and the baseline."""
        return {**super().state(), "baseline": self.baseline}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore all."""
        super().load_state(state)
        self.baseline = state["baseline"].clone()

    def _speed(self, path: Tensor) -> float:
        """The factor of the reward: (limit / cost) to the power of ``LATENCY_EXPONENT``, of the tightest limit."""
        ratios = (limit.value / limit.costs.of(path.tolist()) for limit in self._limits)
        return float(min(ratios, default=1.0) ** LATENCY_EXPONENT)
