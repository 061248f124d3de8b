"""The default: kernels of their own, trained equally, and gains that are measured by swapping candidates.

Every weight step trains one path, and every candidate of a slot comes once before any comes again. Beside it a
swap probe (``supernet.probe``) runs another candidate in some slots on a share of the images; from what the swaps
would change, ``search.gains`` fits the gain of every candidate, and ``search.pooling`` what slots that are alike
tell each other. The gains are the negative gradient of the expected loss by the probabilities; the architecture
parameters are where that loss, less a temperature times the entropy, is least, and the multipliers of the limits
come on top. In the end the knapsack works on the gains alone. Held-out losses of whole networks with the
supernet's weights rank networks of equal latency worse than the sum of gains does (benchmarks/ground_truth).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quadnas.data.base import Batch
from quadnas.search.gains import SwapGains
from quadnas.search.paths import fair_path
from quadnas.search.pooling import pooled, slots_alike
from quadnas.search.problem import Problem
from quadnas.search.softmax import SoftmaxLearner
from quadnas.search.strategy import STRATEGIES, ArchitectureLoss, ArchitectureUpdate, Moment
from quadnas.supernet.entangled import EntangledSupernet
from quadnas.supernet.probe import SwapProbe
from quadnas.training.loop import Criterion, Loss, accuracy_of

PROBED_SLOTS = 1 / 3
"""Of all, drawn anew in every step: half of what a swap costs does not depend on its number of images."""

PROBED_IMAGES = 1 / 2
"""Of the batch, in each of these slots."""

TEMPERATURE = 1 / 10
"""Of the softmax, as a share of the gains' mean error: what differs by more than that is decided."""

COLDEST = 1e-3
"""The least temperature, as a share of the largest gain: the first few swaps can be fitted without any error."""


@STRATEGIES.register("swap")
class Swap(SoftmaxLearner):
    """A weight step costs one path and a sixth of a forward pass; an architecture step nothing more."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem, EntangledSupernet(problem.space, problem.classes))
        self._alike = slots_alike(problem.space)
        self._gains = SwapGains(self._priced)
        self._seen = ArchitectureUpdate(0.0, 0.0)

    def losses(self, batch: Batch, criterion: Criterion, moment: Moment) -> Iterator[Loss]:
        """Train one fair path and, once warmed up, observe a swap in some slots."""
        path = fair_path(self._priced, moment.seed, moment.number)
        if moment.warming_up:
            logits = self.supernet(batch.images, path)
            yield Loss(criterion(logits, batch.labels), logits)
            return
        others = self._others(path, moment.generator())
        probe = SwapProbe(self.supernet, others, max(1, round(PROBED_IMAGES * len(batch.images))))
        logits = probe(batch.images, path)
        loss = criterion(logits, batch.labels)
        factors: list[Tensor] = []  # what the training loop multiplies the loss by
        loss.register_hook(factors.append)
        yield Loss(loss, logits)
        seen = torch.stack([loss.detach().double(), accuracy_of(logits, batch)]).cpu()
        changes = probe.changes() / factors[0].double().cpu()
        changes, seen = self.ranks.mean(torch.cat([changes, seen])).split([len(path), 2])
        self._gains.observe(path, others, changes)
        self._seen = ArchitectureUpdate(*seen.tolist())

    def update_architecture(
        self, held_out: Iterator[Batch], generator: torch.Generator, loss: ArchitectureLoss
    ) -> ArchitectureUpdate:
        """Take over what the gains say by now: the expected gain, with the entropy, is as high as limits allow."""
        gains, errors = self.gains()
        temperature = torch.maximum(TEMPERATURE * errors[self._priced].mean(), COLDEST * gains.abs().max())
        if temperature > 0:
            self.alpha = gains / temperature
        return self._seen

    def gains(self) -> tuple[Tensor, Tensor]:
        """From all swaps that were observed."""
        return pooled(*self._gains.estimate(), self._alike)

    def scores(self) -> NDArray[np.float64]:
        """The gains."""
        return self.gains()[0].numpy()

    def state(self) -> dict[str, Tensor]:
        """Architecture parameters and the swaps observed so far."""
        return {**super().state(), **self._gains.state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore them."""
        super().load_state(state)
        self._gains.load_state(state)

    def _others(self, path: Sequence[int], generator: torch.Generator) -> list[int]:
        """Another candidate for the probed slots, each equally likely; the path's own elsewhere."""
        chosen = torch.tensor(path)[:, None]
        weights = self._priced.double().scatter(1, chosen, 0.0)
        alone = weights.sum(1, keepdim=True) == 0
        others = torch.multinomial(weights.where(~alone, self._priced.double()), 1, generator=generator)[:, 0]
        unprobed = torch.randperm(len(path), generator=generator)[math.ceil(PROBED_SLOTS * len(path)) :]
        others[unprobed] = chosen[unprobed, 0]
        found: list[int] = others.tolist()
        return found
