"""Architecture parameters: a softmax over the candidates of every slot, held to the limits."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quadnas.search.multipliers import multipliers, relative_costs, tilt
from quadnas.search.problem import Problem
from quadnas.search.strategy import ArchitectureLearner
from quadnas.supernet.supernet import Supernet


class SoftmaxLearner(ArchitectureLearner):
    """Architecture parameters ``alpha`` (slots, most candidates) over a supernet, in double precision.

    Candidates without a price are masked out: their probability is 0 throughout. The parameters say what the
    candidates are worth; the distribution is the nearest to their softmax whose expected costs are within limits.
    """

    def __init__(self, problem: Problem, supernet: Supernet) -> None:
        self.supernet = supernet
        self._priced = problem.priced
        self.alpha = torch.zeros(self._priced.shape, dtype=torch.float64)
        self._held = problem.limits if problem.settings.latency_loss == "multiplier" else ()
        self._tilt = torch.zeros_like(self.alpha)

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
        """Architecture parameters and their tilt."""
        return {"alpha": self.alpha.detach(), "tilt": self._tilt}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore them."""
        with torch.no_grad():
            self.alpha.copy_(state["alpha"])
        self._tilt = state["tilt"].clone()

    def _distribution(self) -> Tensor:
        return self._logits().softmax(1)

    def _log_distribution(self) -> Tensor:
        return self._logits().log_softmax(1)

    def _logits(self) -> Tensor:
        return self._unlimited() - self._tilt

    def _unlimited(self) -> Tensor:
        return self.alpha.masked_fill(~self._priced, -torch.inf)
