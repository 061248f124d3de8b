"""The ConvBlock: a QuadraBlock whose mixer is one plain depthwise convolution.

Source: QuadraNet (arXiv 2311.17956), table II; ``convnext`` is the block of ConvNeXt itself.
"""

from typing import Annotated

from pydantic import Field, field_validator

from quadnas.blocks.base import BLOCKS, MetaFormerBlock, require_odd
from quadnas.latency.kernels import Kernel, Operator
from quadnas.ops.depthwise import DepthwiseMixer


@BLOCKS.register("conv")
class Conv(MetaFormerBlock):
    """The two halves with an odd depthwise ``kernel``."""

    kernel: Annotated[int, Field(ge=1, le=31)] = 7

    _odd = field_validator("kernel")(require_odd)

    def mixer(self, channels: int) -> DepthwiseMixer:
        """The depthwise convolution."""
        return DepthwiseMixer(channels, self.kernel)

    def mixer_operators(self, channels: int, height: int, width: int) -> list[Operator]:
        """One depthwise convolution."""
        return [Operator(Kernel("dwconv", height, width, (channels,), channels, self.kernel), (-1,))]
