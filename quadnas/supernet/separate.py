"""The supernet with separate weights for every candidate of every slot (ProxylessNAS's weight sharing).

Source: ProxylessNAS (arXiv 1812.00332) section 3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quadnas.blocks.base import block_of
from quadnas.network import Network
from quadnas.space.layer import Layer
from quadnas.space.search_space import SearchSpace, Slot


class SeparateSlot(nn.Module):
    """One slot: all candidates side by side, of which one or two run."""

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(_candidate(layer) for layer in slot.candidates.values())

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


class SeparateSupernet(nn.Module):
    """Stem, down-sampling and head are shared by all paths; every candidate has its own weights."""

    def __init__(self, space: SearchSpace, classes: int) -> None:
        super().__init__()
        head = space.head.model_copy(update={"channels_out": classes})
        self.positions = nn.ModuleList(
            SeparateSlot(position) if isinstance(position, Slot) else _candidate(position)
            for position in (*space.positions, head)
        )

    def forward(self, images: Tensor, path: Sequence[int]) -> Tensor:
        """(N, 3, H, W) -> logits (N, classes) of the subnet with candidate ``path[s]`` in slot s."""
        choices = iter(path)
        x = images.contiguous(memory_format=torch.channels_last)
        for position in self.positions:
            x = position(x, next(choices)) if isinstance(position, SeparateSlot) else position(x)
        return x

    def gated(self, images: Tensor, pairs: Sequence[tuple[int, int]], gates: Tensor) -> Tensor:
        """Logits (N, classes) of the path through the first of each pair, with gates (slots, 2) in the graph."""
        gated_pairs = zip(pairs, gates, strict=True)
        x = images.contiguous(memory_format=torch.channels_last)
        for position in self.positions:
            x = position.gated(x, *next(gated_pairs)) if isinstance(position, SeparateSlot) else position(x)
        return x

    def inherit(self, network: Network, path: Sequence[int]) -> None:
        """Copy the weights of a path into the plain network of the same architecture."""
        choices = iter(path)
        for position, layer in zip(self.positions, network.layers, strict=True):
            source = position.candidates[next(choices)] if isinstance(position, SeparateSlot) else position
            layer.load_state_dict(source.state_dict())


def _candidate(layer: Layer) -> nn.Module:
    block, ports = block_of(layer)
    return block.in_supernet().build(ports)
