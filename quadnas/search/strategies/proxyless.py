"""ProxylessNAS: binary gates over separate weights, two paths per architecture step.

Source: ProxylessNAS (arXiv 1812.00332) section 3.2 and the released code's ``two`` mode.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.data.base import Batch
from quadnas.network import Network
from quadnas.search.problem import Problem
from quadnas.search.strategy import STRATEGIES, ArchitectureLoss, ArchitectureUpdate, Strategy
from quadnas.supernet.separate import SeparateSupernet
from quadnas.training.loop import Criterion, Loss, accuracy_of
from quadnas.training.state import optimizer_tensors, restore_optimizer

INITIAL_SPREAD = 1e-3


@STRATEGIES.register("proxyless")
class Proxyless(Strategy):
    """Architecture parameters (slots, candidates), one path per weight step, Adam with betas (0, 0.999).

    Candidates without a price are masked out: their probability is 0 throughout.
    """

    supernet: SeparateSupernet

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
        weights = self._priced.double() if warming_up else self._probabilities().detach()
        path = torch.multinomial(weights, 1, generator=generator)[:, 0]
        logits = self.supernet(batch.images, path.tolist())
        yield Loss(criterion(logits, batch.labels), logits)

    def update_architecture(
        self, held_out: Iterator[Batch], generator: torch.Generator, loss: ArchitectureLoss
    ) -> ArchitectureUpdate:
        """One two-path step: the published gradient on two sampled candidates per slot, then the rescaling.

        With gates g = (1, 0) for (active, idle) and q the two probabilities renormalised, dL/dalpha_i =
        sum_j dL/dg_j q_j (delta_ij - q_i); the mass of the candidates that were not sampled does not change.
        """
        batch = next(held_out)
        pair = self._sample_pairs(generator)
        active = torch.multinomial(self._pair_shares(pair).detach(), 1, generator=generator)
        pair = pair.gather(1, torch.cat([active, 1 - active], dim=1))
        gates = torch.tensor([1.0, 0.0], device=batch.images.device).repeat(len(pair), 1).requires_grad_()
        with _frozen(self.supernet):
            logits = self.supernet.gated(batch.images, pair.tolist(), gates)
            task_loss = F.cross_entropy(logits, batch.labels)
            (gate_gradient,) = torch.autograd.grad(task_loss, gates)

        share = self._pair_shares(pair)
        task = task_loss.item() + ((share - share.detach()) * gate_gradient.double().cpu()).sum()
        spread = torch.zeros_like(self.alpha).scatter_add(1, pair, share)
        before = self._pair_mass(pair)
        self.optimizer.zero_grad()
        loss(task, spread).backward()
        self.optimizer.step()
        with torch.no_grad():
            shift = self._pair_mass(pair) - before
            self.alpha.scatter_(1, pair, self.alpha.gather(1, pair) - shift)
        return ArchitectureUpdate(task_loss.item(), accuracy_of(logits, batch).item())

    def probabilities(self) -> NDArray[np.float64]:
        """softmax(alpha) per slot."""
        return self._probabilities().detach().numpy()

    def scores(self) -> NDArray[np.float64]:
        """log p; candidates without a price never count."""
        return self._masked().log_softmax(1).detach().nan_to_num(neginf=0.0).numpy()

    def inherit(self, network: Network, choices: Sequence[int]) -> None:
        """Copy the path's weights."""
        self.supernet.inherit(network, choices)

    def state(self) -> dict[str, Tensor]:
        """Architecture parameters and their optimiser."""
        return {"alpha": self.alpha.detach(), **optimizer_tensors(self.optimizer)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore both."""
        with torch.no_grad():
            self.alpha.copy_(state["alpha"])
        restore_optimizer(self.optimizer, state)

    def _masked(self) -> Tensor:
        return self.alpha.masked_fill(~self._priced, -torch.inf)

    def _probabilities(self) -> Tensor:
        return self._masked().softmax(1)

    def _sample_pairs(self, generator: torch.Generator) -> Tensor:
        """(slots, 2) candidates drawn without replacement ~ p; a slot with one candidate has it twice."""
        weights = self._probabilities().detach()
        first = torch.multinomial(weights, 1, generator=generator)
        rest = weights.scatter(1, first, 0.0)
        alone = rest.sum(1, keepdim=True) == 0
        second = torch.multinomial(torch.where(alone, weights, rest), 1, generator=generator)
        return torch.cat([first, second], dim=1)

    def _pair_shares(self, pair: Tensor) -> Tensor:
        return self.alpha.gather(1, pair).softmax(1)

    def _pair_mass(self, pair: Tensor) -> Tensor:
        return self.alpha.detach().gather(1, pair).logsumexp(1, keepdim=True)


@contextmanager
def _frozen(supernet: nn.Module) -> Iterator[None]:
    """No weight gradients and no change of normalisation statistics: an architecture step trains no weight."""
    parameters = [p for p in supernet.parameters() if p.requires_grad]
    norms = [
        m for m in supernet.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.momentum != 0
    ]
    momenta = [norm.momentum for norm in norms]
    for parameter in parameters:
        parameter.requires_grad_(False)
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
