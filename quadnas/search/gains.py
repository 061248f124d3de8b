"""What every candidate is worth in its slot, from single swaps of one candidate for another."""

from collections.abc import Sequence

import torch
from torch import Tensor

MEMORY = 2.0
"""An observation made at time t weighs t ** MEMORY: the weights that it saw were the less trained, the earlier."""


class SwapGains:
    """Losses of candidates relative to each other, fitted by least squares to observed swaps.

    A swap in slot s from candidate i to j that changed the loss by d is an observation of loss[s, j] - loss[s, i].
    A swap measured to first order at i and one back, measured at j, have opposite errors of second order: fitting
    both is the trapezoid rule. ``priced`` (slots, most candidates) bool: the candidates that take part.
    """

    def __init__(self, priced: Tensor) -> None:
        slots, candidates = priced.shape
        self._priced = priced
        # per slot, from i to j: sums of weight, weight * change, weight * change^2 and weight^2
        self._sums = torch.zeros(4, slots, candidates, candidates, dtype=torch.float64)
        self._time = torch.zeros((), dtype=torch.float64)

    def observe(self, path: Sequence[int], others: Sequence[int], changes: Tensor) -> None:
        """Count swaps: ``changes`` (slots,) of the loss by ``others`` in place of ``path``, where they differ."""
        self._time += 1
        weight = self._time**MEMORY
        before, after = torch.tensor(path), torch.tensor(others)
        swapped = before != after
        change = changes[swapped]
        ones = torch.ones_like(change)
        terms = torch.stack([weight * ones, weight * change, weight * change**2, weight**2 * ones])
        self._sums[:, swapped.nonzero()[:, 0], before[swapped], after[swapped]] += terms

    def estimate(self) -> tuple[Tensor, Tensor]:
        """Gains and their standard errors, (slots, most candidates) each, 0 where there is no price.

        A gain is how much lower the loss is than the average over the candidates of the slot.
        """
        weight, change, square, weight2 = self._sums
        laplacian = _laplacian(weight + weight.transpose(1, 2))
        inverse = torch.linalg.pinv(laplacian, hermitian=True)
        target = change.sum(1) - change.sum(2)  # what came in by swaps to j, less what left it
        losses = (inverse @ target[..., None])[..., 0]
        spread = losses[:, None, :] - losses[:, :, None]
        total = weight.sum((1, 2)).clamp_min(torch.finfo(torch.float64).tiny)
        residual = (square - 2 * change * spread + weight * spread**2).sum((1, 2)) / total
        # observations of unequal weight count as fewer
        covariance = inverse @ _laplacian(weight2 + weight2.transpose(1, 2)) @ inverse
        errors = (covariance.diagonal(dim1=1, dim2=2) * residual[:, None]).clamp_min(0).sqrt()
        average = (losses * self._priced).sum(1, keepdim=True) / self._priced.sum(1, keepdim=True)
        return (average - losses) * self._priced, errors * self._priced

    def state(self) -> dict[str, Tensor]:
        """Everything observed, as references."""
        return {"swaps": self._sums, "swap time": self._time}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        self._sums.copy_(state["swaps"])
        self._time.copy_(state["swap time"])


def _laplacian(weights: Tensor) -> Tensor:
    """(slots, n, n) symmetric weights of a graph's edges -> its Laplacian matrices."""
    return torch.diag_embed(weights.sum(2)) - weights
