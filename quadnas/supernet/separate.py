"""The supernet with separate weights for every candidate of every slot (ProxylessNAS's weight sharing).

Source: ProxylessNAS (arXiv 1812.00332) section 3.
"""

from torch import Tensor

from quadnas.space.search_space import SearchSpace
from quadnas.supernet.supernet import Supernet, SupernetSlot


class SeparateSlot(SupernetSlot):
    """One slot: all candidates side by side, of which one runs."""

    def forward(self, x: Tensor, choice: int) -> Tensor:
        """(N, C, H, W) -> the output of one candidate."""
        output: Tensor = self.candidates[choice](x)
        return output

    def weights_of(self, choice: int) -> dict[str, Tensor]:
        """The state of one candidate."""
        return self.candidates[choice].state_dict()


class SeparateSupernet(Supernet):
    """Stem, down-sampling and head are shared by all paths; every candidate has its own weights."""

    def __init__(self, space: SearchSpace, classes: int) -> None:
        super().__init__(space, classes, SeparateSlot)
