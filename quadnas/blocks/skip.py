"""The SkipBlock: a QuadraBlock without its spatial half, which mixes no positions.

Source: the reference point of QuadraNet (arXiv 2311.17956), table II.
"""

from quadnas.blocks.base import BLOCKS, MetaFormerBlock
from quadnas.latency.kernels import Operator


@BLOCKS.register("skip")
class Skip(MetaFormerBlock):
    """x + g MLP(LN(x)) alone."""

    def mixer(self, channels: int) -> None:
        """None."""

    def mixer_operators(self, channels: int, height: int, width: int) -> list[Operator]:
        """None."""
        return []
