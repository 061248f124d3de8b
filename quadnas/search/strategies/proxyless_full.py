"""ProxylessNAS with full gates: every candidate of every slot has its say in an architecture step.

Source: the default of the released code (of arXiv 1812.00332), ``full_v2``, without its defect: no forward pass
touches the statistics of batch normalisation.
"""

from collections.abc import Iterator

import torch

from quadnas.data.base import Batch
from quadnas.search.gated import Gated, through_gates
from quadnas.search.strategy import STRATEGIES, ArchitectureLoss, ArchitectureUpdate


@STRATEGIES.register("proxyless_full")
class ProxylessFull(Gated):
    """An architecture step costs one path forward and backward, and the other candidates forward."""

    def update_architecture(
        self, held_out: Iterator[Batch], generator: torch.Generator, loss: ArchitectureLoss
    ) -> ArchitectureUpdate:
        """The published gradient on all candidates, of which one per slot is active."""
        batch = next(held_out)
        seen, gates = self._gate_gradients(batch, self._draw(generator), self._priced)
        shares = self._distribution()
        self._descend(loss(through_gates(seen.loss, gates, shares), shares))
        return seen
