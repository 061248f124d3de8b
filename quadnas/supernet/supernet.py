"""What every supernet is: fixed layers that all paths share, and slots of which a path takes one candidate."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from quadnas.blocks.base import block_of
from quadnas.network import Network
from quadnas.space.layer import Layer
from quadnas.space.search_space import SearchSpace, Slot


class SupernetSlot(nn.Module, ABC):
    """All candidates of one slot, of which a path runs one."""

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(candidate(layer) for layer in slot.candidates.values())

    @abstractmethod
    def forward(self, x: Tensor, choice: int) -> Tensor:
        """(N, C, H, W) -> the output of one candidate."""

    @abstractmethod
    def weights_of(self, choice: int) -> dict[str, Tensor]:
        """The state of one candidate as the plain block has it: parameters and buffers by name."""


class Supernet(nn.Module):
    """A search space with weights; ``slot`` makes the modules that differ between kinds of weight sharing."""

    def __init__(self, space: SearchSpace, classes: int, slot: Callable[[Slot], SupernetSlot]) -> None:
        super().__init__()
        head = space.head.model_copy(update={"channels_out": classes})
        self.positions = nn.ModuleList(
            slot(position) if isinstance(position, Slot) else candidate(position)
            for position in (*space.positions, head)
        )

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
                layer.load_state_dict(position.weights_of(next(choices)))
            else:
                layer.load_state_dict(position.state_dict())


def candidate(layer: Layer) -> nn.Module:
    """The freshly initialised module of a layer in a supernet."""
    block, ports = block_of(layer)
    return block.in_supernet().build(ports)
