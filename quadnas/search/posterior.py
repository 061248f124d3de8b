"""What is believed of the gains once whole networks have been compared: Bayesian linear regression."""

from collections.abc import Sequence

import torch
from torch import Tensor

INFLATION = 4.0
"""Of the variances of measured gains: they are averages over all networks, not those near the best."""

LEVEL_VARIANCE = 1e4
"""Of the loss that all networks share, which nothing is known of."""


class GainPosterior:
    """Gains (slots, most candidates) with a normal prior, updated by the losses of whole networks.

    The loss of a network is taken for a level less the sum of its gains, with a normal residual: what the gains do
    not explain, of which the networks compared so far tell the variance.
    """

    def __init__(self, gains: Tensor, errors: Tensor) -> None:
        self._shape = gains.shape
        self._prior = torch.cat([gains.flatten().double(), torch.zeros(1, dtype=torch.float64)])
        self._variances = torch.cat(
            [
                INFLATION * errors.flatten().double().square(),
                torch.tensor([LEVEL_VARIANCE], dtype=torch.float64),
            ]
        )
        self._rows: list[Tensor] = []
        self._values: list[float] = []

    def observe(self, choices: Sequence[int], loss: float) -> None:
        """A network with candidate ``choices[s]`` in slot s has this loss."""
        row = torch.zeros(self._shape, dtype=torch.float64)
        row[torch.arange(len(choices)), torch.tensor(choices)] = 1
        self._rows.append(torch.cat([row.flatten(), torch.ones(1, dtype=torch.float64)]))
        self._values.append(-loss)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Gains (slots, most candidates) drawn from what is believed now."""
        mean, covariance = self._believed()
        values, vectors = torch.linalg.eigh(covariance)
        noise = torch.randn(len(mean), dtype=torch.float64, generator=generator)
        # the symmetric root: it does not depend on the signs of the vectors, which rounding decides
        drawn: Tensor = mean + vectors @ (values.clamp_min(0).sqrt() * (vectors.T @ noise))
        return drawn[:-1].view(self._shape)

    def _believed(self) -> tuple[Tensor, Tensor]:
        prior = torch.diag(self._variances)
        if not self._rows:
            return self._prior, prior
        design, values = torch.stack(self._rows), torch.tensor(self._values, dtype=torch.float64)
        surprise = values - design @ self._prior
        explained = design @ prior @ design.T
        unknown = explained.diagonal().mean() - LEVEL_VARIANCE
        residual = surprise.var() if len(values) > 2 else unknown
        noise = residual.clamp_min(1e-12) * torch.eye(len(values), dtype=torch.float64)
        weights = torch.linalg.solve(explained + noise, design @ prior).T
        covariance = prior - weights @ design @ prior
        return self._prior + weights @ surprise, (covariance + covariance.T) / 2
