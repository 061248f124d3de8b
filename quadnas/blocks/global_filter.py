"""The QuadraBlock with a global receptive field: three filters as large as the map instead of convolutions.

Source: QuadraNet (arXiv 2311.17956), table IV, with the global filter of GFNet (arXiv 2107.00645).
"""

from typing import Annotated

from pydantic import Field

from quadnas.blocks.base import BLOCKS, MetaFormerBlock
from quadnas.latency.kernels import Operator
from quadnas.ops.global_filter import GlobalFilterMixer, global_filter_operators


@BLOCKS.register("global_filter")
class QuadraGlobalFilter(MetaFormerBlock):
    """Quadratic global filter and MLP; ``size`` is the side of the map that the filters are made for.

    They have 6 size (size // 2 + 1) weights a channel, and are interpolated where the map has another size.
    """

    size: Annotated[int, Field(ge=1, le=256)]

    def mixer(self, channels: int) -> GlobalFilterMixer:
        """The quadratic global filter."""
        return GlobalFilterMixer(channels, self.size)

    def mixer_operators(self, channels: int, height: int, width: int) -> list[Operator]:
        """Fourier transforms, products in their domain, a product and a sum of the results."""
        return global_filter_operators(channels, height, width)
