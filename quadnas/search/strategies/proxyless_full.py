"""ProxylessNAS with full gates: every candidate of every slot has its say in an architecture step.

Source: the default of the released code (of arXiv 1812.00332), ``full_v2``, without its defect: no forward pass
touches the statistics of batch normalisation.
"""

from collections.abc import Iterator

import torch
from torch.nn import functional as F

from quadnas.data.base import Batch
from quadnas.search.gated import Gated, through_gates
from quadnas.search.strategy import STRATEGIES, ArchitectureLoss, ArchitectureUpdate
from quadnas.supernet.gates import gate_gradients
from quadnas.training.loop import accuracy_of


@STRATEGIES.register("proxyless_full")
class ProxylessFull(Gated):
    """An architecture step costs one path forward and backward, and the other candidates forward."""

    def update_architecture(
        self, held_out: Iterator[Batch], generator: torch.Generator, loss: ArchitectureLoss
    ) -> ArchitectureUpdate:
        """The published gradient on all candidates, of which one per slot is active."""
        batch = next(held_out)
        found = gate_gradients(
            self.supernet, batch.images, self._draw(generator).tolist(), self._priced,
            lambda logits: F.cross_entropy(logits, batch.labels),
        )  # fmt: skip
        shares = self._distribution()
        self._descend(loss(through_gates(found.loss, found.gates, shares), shares))
        return ArchitectureUpdate(found.loss.item(), accuracy_of(found.logits, batch).item())
