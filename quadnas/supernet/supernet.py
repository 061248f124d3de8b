"""What every supernet is: fixed layers that all paths share, and slots of which a path takes one candidate."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from quadnas.blocks.base import block_of
from quadnas.network import Network
from quadnas.space.layer import Layer
from quadnas.space.search_space import SearchSpace, Slot


class SupernetSlot(nn.Module):
    """All candidates of one slot side by side, of which a path runs one."""

    def __init__(self, candidates: Iterable[nn.Module]) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(candidates)

    def forward(self, x: Tensor, choice: int) -> Tensor:
        """(N, C, H, W) -> the output of one candidate."""
        output: Tensor = self.candidates[choice](x)
        return output


class Supernet(nn.Module):
    """A search space with weights: every candidate has its own; stem, down-sampling and head are all paths'.

    Source: ProxylessNAS (arXiv 1812.00332) section 3.
    """

    def __init__(self, space: SearchSpace, classes: int) -> None:
        super().__init__()
        head = space.head.model_copy(update={"channels_out": classes})
        self.positions = nn.ModuleList(
            SupernetSlot(self._candidates(position)) if isinstance(position, Slot) else candidate(position)
            for position in (*space.positions, head)
        )

    def _candidates(self, slot: Slot) -> Iterator[nn.Module]:
        return map(candidate, slot.candidates.values())

    def forward(self, images: Tensor, path: Sequence[int]) -> Tensor:
        """(N, 3, H, W) -> logits (N, classes) of the subnet with candidate ``path[s]`` in slot s."""
        choices = iter(path)
        x = images.contiguous(memory_format=torch.channels_last)
        for position in self.positions:
            x = position(x, next(choices)) if isinstance(position, SupernetSlot) else position(x)
        return x

    def inherit(self, network: Network, path: Sequence[int]) -> None:
        """Copy the weights of a path into the plain network of the same architecture."""
        choices = iter(path)
        for position, layer in zip(self.positions, network.layers, strict=True):
            if isinstance(position, SupernetSlot):
                layer.load_state_dict(position.candidates[next(choices)].state_dict())
            else:
                layer.load_state_dict(position.state_dict())


def candidate(layer: Layer) -> nn.Module:
    """The freshly initialised module of a layer in a supernet."""
    block, ports = block_of(layer)
    return block.in_supernet().build(ports)
