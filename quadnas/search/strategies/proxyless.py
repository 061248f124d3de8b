"""ProxylessNAS: binary gates over separate weights, two candidates of every slot per architecture step.

Source: ProxylessNAS (arXiv 1812.00332) section 3.2 and the released code's ``two`` mode.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from quadnas.data.base import Batch
from quadnas.search.gated import Gated, through_gates
from quadnas.search.strategy import STRATEGIES, ArchitectureLoss, ArchitectureUpdate


@STRATEGIES.register("proxyless")
class Proxyless(Gated):
    """An architecture step costs one path forward and backward, and one more forward."""

    def update_architecture(
        self, held_out: Iterator[Batch], generator: torch.Generator, loss: ArchitectureLoss
    ) -> ArchitectureUpdate:
        """The published gradient on two sampled candidates per slot, of which one is active, then the rescaling.

        Both are taken by their probabilities among the two, and so is their latency; the mass of the candidates
        that were not sampled does not change.
        """
        batch = next(held_out)
        pair = self._sample_pairs(generator)
        sampled = torch.zeros_like(self._priced).scatter(1, pair, True)
        first = torch.multinomial(self._pair_shares(pair).detach(), 1, generator=generator)
        seen, gates = self._gate_gradients(batch, pair.gather(1, first)[:, 0], sampled)

        shares = torch.zeros_like(self.alpha).scatter_add(1, pair, self._pair_shares(pair))
        before = self._pair_mass(pair)
        self._descend(loss(through_gates(seen.loss, gates, shares), shares))
        with torch.no_grad():
            shift = self._pair_mass(pair) - before
            self.alpha.scatter_(1, pair, self.alpha.gather(1, pair) - shift)
        return seen

    def _sample_pairs(self, generator: torch.Generator) -> Tensor:
        """(slots, 2) candidates drawn without replacement ~ p; a slot with one candidate has it twice."""
        weights = self._distribution().detach()
        first = torch.multinomial(weights, 1, generator=generator)
        rest = weights.scatter(1, first, 0.0)
        alone = rest.sum(1, keepdim=True) == 0
        second = torch.multinomial(torch.where(alone, weights, rest), 1, generator=generator)
        return torch.cat([first, second], dim=1)

    def _pair_shares(self, pair: Tensor) -> Tensor:
        return self._logits().gather(1, pair).softmax(1)

    def _pair_mass(self, pair: Tensor) -> Tensor:
        return self._logits().detach().gather(1, pair).logsumexp(1, keepdim=True)
