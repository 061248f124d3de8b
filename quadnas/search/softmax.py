"""Architecture parameters: a softmax over the candidates of every slot, learned by Adam."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quadnas.search.problem import Problem
from quadnas.search.strategy import ArchitectureLearner
from quadnas.supernet.supernet import Supernet
from quadnas.training.state import optimizer_tensors, restore_optimizer

INITIAL_SPREAD = 1e-3


class SoftmaxLearner(ArchitectureLearner):
    """Architecture parameters (slots, most candidates) over a supernet, Adam with betas (0, 0.999).

    Candidates without a price are masked out: their probability is 0 throughout.
    Source: ProxylessNAS (arXiv 1812.00332) section 3, with the released code's initial values and optimiser.
    """

    def __init__(self, problem: Problem, supernet: Supernet) -> None:
        self.supernet = supernet
        self._priced = problem.priced
        self.alpha = nn.Parameter(INITIAL_SPREAD * torch.randn(self._priced.shape, dtype=torch.float64))
        self.optimizer = torch.optim.Adam(
            [self.alpha], lr=problem.settings.schedule.architecture_rate, betas=(0.0, 0.999)
        )

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

    def _distribution(self) -> Tensor:
        return self._masked().softmax(1)

    def _log_distribution(self) -> Tensor:
        return self._masked().log_softmax(1)

    def _masked(self) -> Tensor:
        return self.alpha.masked_fill(~self._priced, -torch.inf)
