"""The identity: the candidate that makes a slot, and so the depth, optional."""

from torch import nn

from quadnas.blocks.base import BLOCKS, Block, Ports, require_same_shape
from quadnas.latency.kernels import Operator


@BLOCKS.register("identity")
class Identity(Block):
    """Passes its input on and runs no operator."""

    def check(self, ports: Ports) -> None:
        """The shape cannot change."""
        require_same_shape("identity", ports)

    def build(self, ports: Ports) -> nn.Identity:
        """The module without parameters."""
        return nn.Identity()

    def operators(self, ports: Ports, height: int, width: int) -> list[Operator]:
        """None: an identity truly costs 0 ms."""
        return []
