"""Architecture parameters: a softmax over the candidates of every slot, learned by Adam and held to the limits."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quadnas.search.constraint import multipliers, relative_costs, tilt
from quadnas.search.problem import Problem
from quadnas.search.strategy import ArchitectureLearner
from quadnas.supernet.supernet import Supernet
from quadnas.training.state import optimizer_tensors, restore_optimizer

INITIAL_SPREAD = 1e-3


class SoftmaxLearner(ArchitectureLearner):
    """Architecture parameters (slots, most candidates) over a supernet, Adam with betas (0, 0.999).

    Candidates without a price are masked out: their probability is 0 throughout. The parameters say what the
    candidates are worth; the distribution is the nearest to their softmax whose expected costs are within limits.
    Source: ProxylessNAS (arXiv 1812.00332) section 3, with the released code's initial values and optimiser.
    """

    def __init__(self, problem: Problem, supernet: Supernet) -> None:
        self.supernet = supernet
        self._priced = problem.priced
        self.alpha = nn.Parameter(INITIAL_SPREAD * torch.randn(self._priced.shape, dtype=torch.float64))
        self._held = problem.limits if problem.settings.latency_loss == "multiplier" else ()
        self._tilt = torch.zeros_like(self.alpha)
        self.optimizer = torch.optim.Adam(
            [self.alpha], lr=problem.settings.schedule.architecture_rate, betas=(0.0, 0.999)
        )

    def probabilities(self) -> NDArray[np.float64]:
        """softmax(alpha - tilt) per slot."""
        return self._distribution().detach().numpy()

    def scores(self) -> NDArray[np.float64]:
        """log softmax(alpha): what candidates are worth before any limit; those without a price never count."""
        return self._unlimited().log_softmax(1).detach().nan_to_num(neginf=0.0).numpy()

    def hold(self) -> tuple[float, ...] | None:
        """Tilt the distribution by the limits' multipliers; a published latency loss has none."""
        if not self._held:
            return None
        logits = self._unlimited().detach().numpy()
        weights = multipliers(logits, self._held)
        self._tilt = torch.from_numpy(tilt(weights, relative_costs(self._held, logits.shape[1])))
        return tuple(weights.tolist())

    def state(self) -> dict[str, Tensor]:
        """Architecture parameters, their tilt and their optimiser."""
        return {"alpha": self.alpha.detach(), "tilt": self._tilt, **optimizer_tensors(self.optimizer)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore them."""
        with torch.no_grad():
            self.alpha.copy_(state["alpha"])
        self._tilt = state["tilt"].clone()
        restore_optimizer(self.optimizer, state)

    def _descend(self, objective: Tensor) -> None:
        """One step of the optimiser on an objective () of the architecture parameters."""
        self.optimizer.zero_grad()
        objective.backward()
        self.optimizer.step()

    def _distribution(self) -> Tensor:
        return self._logits().softmax(1)

    def _log_distribution(self) -> Tensor:
        return self._logits().log_softmax(1)

    def _logits(self) -> Tensor:
        return self._unlimited() - self._tilt

    def _unlimited(self) -> Tensor:
        return self.alpha.masked_fill(~self._priced, -torch.inf)
