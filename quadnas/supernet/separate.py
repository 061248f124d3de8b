"""The supernet with separate weights for every candidate of every slot (ProxylessNAS's weight sharing).

Source: ProxylessNAS (arXiv 1812.00332) section 3.
"""

from torch import Tensor, nn

from quadnas.space.search_space import SearchSpace, Slot
from quadnas.supernet.supernet import Supernet, SupernetSlot, candidate


class SeparateSlot(SupernetSlot):
    """One slot: all candidates side by side, of which one runs."""

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(candidate(layer) for layer in slot.candidates.values())

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
