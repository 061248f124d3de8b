"""What the strategies of ProxylessNAS share: weight steps by probability over separate weights, gates, Adam.

Source: ProxylessNAS (arXiv 1812.00332) section 3.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.data.base import Batch
from quadnas.search.problem import Problem
from quadnas.search.softmax import SoftmaxLearner
from quadnas.search.strategy import ArchitectureUpdate, Moment
from quadnas.supernet.gates import gate_gradients
from quadnas.supernet.supernet import Supernet
from quadnas.training.loop import Criterion, Loss, accuracy_of
from quadnas.training.state import optimizer_tensors, restore_optimizer

INITIAL_SPREAD = 1e-3


class Gated(SoftmaxLearner):
    """One path per weight step, drawn by the probabilities, over separate weights; Adam with betas (0, 0.999).

    Initial values and optimiser of the architecture parameters are those of the released code.
    """

    descends = True

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem, Supernet(problem.space, problem.classes))
        self.alpha = nn.Parameter(INITIAL_SPREAD * torch.randn_like(self.alpha))
        self.optimizer = torch.optim.Adam(
            [self.alpha], lr=problem.settings.schedule.architecture_rate, betas=(0.0, 0.999)
        )

    def losses(self, batch: Batch, criterion: Criterion, moment: Moment) -> Iterator[Loss]:
        """Train one sampled path; while warming up every candidate is equally likely."""
        weights = self._priced.double() if moment.warming_up else self._distribution().detach()
        logits = self.supernet(batch.images, _drawn(weights, moment.generator()).tolist())
        yield Loss(criterion(logits, batch.labels), logits)

    def state(self) -> dict[str, Tensor]:
        """Architecture parameters, their tilt and their optimiser."""
        return {**super().state(), **optimizer_tensors(self.optimizer)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore them."""
        super().load_state(state)
        restore_optimizer(self.optimizer, state)

    def _descend(self, objective: Tensor) -> None:
        """One step of the optimiser on an objective () of the architecture parameters."""
        self.optimizer.zero_grad()
        objective.backward()
        self.optimizer.step()

    def _gate_gradients(self, batch: Batch, path: Tensor, asked: Tensor) -> tuple[ArchitectureUpdate, Tensor]:
        """What a path (slots,) sees on the whole of a batch, and dL/dg there (``gates.gate_gradients``)."""
        found = gate_gradients(
            self.supernet, batch.images, path.tolist(), asked,
            lambda logits: F.cross_entropy(logits, batch.labels),
        )  # fmt: skip
        seen = torch.stack([found.loss.double(), accuracy_of(found.logits, batch)]).cpu()
        whole = self.ranks.mean(torch.cat([seen, found.gates.flatten()]))
        return ArchitectureUpdate(*whole[:2].tolist()), whole[2:].view_as(found.gates)

    def _draw(self, generator: torch.Generator) -> Tensor:
        """(slots,): a candidate of every slot, by its probability."""
        return _drawn(self._distribution().detach(), generator)


def through_gates(task_loss: float, gate_gradient: Tensor, shares: Tensor) -> Tensor:
    """The task loss as a function of ``shares`` (slots, most candidates), whose gates have these gradients.

    With shares q = softmax(alpha) its gradient is the published dL/dalpha_i = sum_j dL/dg_j q_j (delta_ij - q_i).
    """
    return task_loss + ((shares - shares.detach()) * gate_gradient).sum()


def _drawn(weights: Tensor, generator: torch.Generator) -> Tensor:
    return torch.multinomial(weights, 1, generator=generator)[:, 0]
