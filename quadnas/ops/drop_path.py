"""Stochastic depth: in training, a residual branch is left out for some of the samples.

Source: Huang et al. (arXiv 1603.09382), with the kept samples scaled up as in inverted dropout.
"""

from torch import Tensor, nn


class DropPath(nn.Module):
    """Zeroes whole samples with probability ``rate`` in [0, 1) and divides the others by 1 - ``rate``.

    The rate is 0 at construction and an attribute to be set; at rate 0, and in evaluation mode, the input is
    returned as it is. Draws from torch's global generator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rate = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> (N, ...)."""
        if self.rate == 0 or not self.training:
            return x
        keep = 1 - self.rate
        kept = x.new_empty(x.shape[0], *(1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * kept.div_(keep)

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.rate}"
