"""What the strategies of ProxylessNAS share: architecture parameters over separate weights, and their optimiser.

Source: ProxylessNAS (arXiv 1812.00332) section 3, with the released code's initial values and optimiser.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quadnas.data.base import Batch
from quadnas.search.problem import Problem
from quadnas.search.strategy import ArchitectureLearner
from quadnas.supernet.separate import SeparateSupernet
from quadnas.training.loop import Criterion, Loss
from quadnas.training.state import optimizer_tensors, restore_optimizer

INITIAL_SPREAD = 1e-3


class Gated(ArchitectureLearner):
    """Architecture parameters (slots, most candidates), one path per weight step, Adam with betas (0, 0.999).

    Candidates without a price are masked out: their probability is 0 throughout.
    """

    def __init__(self, problem: Problem) -> None:
        self.supernet = SeparateSupernet(problem.space, problem.classes)
        self._priced = problem.bounds.priced
        self.alpha = nn.Parameter(INITIAL_SPREAD * torch.randn(self._priced.shape, dtype=torch.float64))
        self.optimizer = torch.optim.Adam(
            [self.alpha], lr=problem.settings.schedule.architecture_rate, betas=(0.0, 0.999)
        )

    def losses(
        self, batch: Batch, criterion: Criterion, generator: torch.Generator, *, warming_up: bool
    ) -> Iterator[Loss]:
        """Train one sampled path; while warming up every candidate is equally likely."""
        weights = self._priced.double() if warming_up else self._distribution().detach()
        logits = self.supernet(batch.images, _drawn(weights, generator).tolist())
        yield Loss(criterion(logits, batch.labels), logits)

    def probabilities(self) -> NDArray[np.float64]:
        """softmax(alpha) per slot."""
        return self._distribution().detach().numpy()

    def scores(self) -> NDArray[np.float64]:
        """log p; candidates without a price never count."""
        return self._log_distribution().detach().nan_to_num(neginf=0.0).numpy()

    def state(self) -> dict[str, Tensor]:
        """Architecture parameters and their optimiser."""
        return {"alpha": self.alpha.detach(), **optimizer_tensors(self.optimizer)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore both."""
        with torch.no_grad():
            self.alpha.copy_(state["alpha"])
        restore_optimizer(self.optimizer, state)

    def _descend(self, objective: Tensor) -> None:
        """One step of the optimiser on an objective () of the architecture parameters."""
        self.optimizer.zero_grad()
        objective.backward()
        self.optimizer.step()

    def _draw(self, generator: torch.Generator) -> Tensor:
        """(slots,): a candidate of every slot, by its probability."""
        return _drawn(self._distribution().detach(), generator)

    def _distribution(self) -> Tensor:
        return self._masked().softmax(1)

    def _log_distribution(self) -> Tensor:
        return self._masked().log_softmax(1)

    def _masked(self) -> Tensor:
        return self.alpha.masked_fill(~self._priced, -torch.inf)


def through_gates(task_loss: Tensor, gate_gradient: Tensor, shares: Tensor) -> Tensor:
    """The task loss as a function of ``shares`` (slots, most candidates), whose gates have these gradients.

    With shares q = softmax(alpha) its gradient is the published dL/dalpha_i = sum_j dL/dg_j q_j (delta_ij - q_i).
    """
    return task_loss.item() + ((shares - shares.detach()) * gate_gradient).sum()


def _drawn(weights: Tensor, generator: torch.Generator) -> Tensor:
    return torch.multinomial(weights, 1, generator=generator)[:, 0]
