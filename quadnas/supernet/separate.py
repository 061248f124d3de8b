"""The supernet with separate weights for every candidate of every slot (ProxylessNAS's weight sharing).

Source: ProxylessNAS (arXiv 1812.00332) section 3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quadnas.space.search_space import SearchSpace, Slot
from quadnas.supernet.supernet import Supernet, SupernetSlot, candidate


class SeparateSlot(SupernetSlot):
    """One slot: all candidates side by side, of which one or two run."""

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(candidate(layer) for layer in slot.candidates.values())

    def forward(self, x: Tensor, choice: int) -> Tensor:
        """(N, C, H, W) -> the output of one candidate."""
        output: Tensor = self.candidates[choice](x)
        return output

    def gated(self, x: Tensor, pair: tuple[int, int], gates: Tensor) -> Tensor:
        """The output of the first of ``pair``, with ``gates`` (2,) = (1, 0) for (active, idle) in the graph.

        The idle output is a constant in the graph, so that memory holds one path; the gradients on the gates are
        <dL/dout, o_active> and <dL/dout, o_idle>. An identity is a candidate like any other.
        """
        active, idle = pair
        with torch.no_grad():
            idle_output = self.candidates[idle](x)
        output: Tensor = gates[0] * self.candidates[active](x) + gates[1] * idle_output
        return output

    def weights_of(self, choice: int) -> dict[str, Tensor]:
        """The state of one candidate."""
        return self.candidates[choice].state_dict()


class SeparateSupernet(Supernet):
    """Stem, down-sampling and head are shared by all paths; every candidate has its own weights."""

    def __init__(self, space: SearchSpace, classes: int) -> None:
        super().__init__(space, classes, SeparateSlot)

    def gated(self, images: Tensor, pairs: Sequence[tuple[int, int]], gates: Tensor) -> Tensor:
        """Logits (N, classes) of the path through the first of each pair, with gates (slots, 2) in the graph."""
        gated_pairs = zip(pairs, gates, strict=True)
        x = images.contiguous(memory_format=torch.channels_last)
        for position in self.positions:
            x = position.gated(x, *next(gated_pairs)) if isinstance(position, SeparateSlot) else position(x)
        return x
