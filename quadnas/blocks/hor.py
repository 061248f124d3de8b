"""The HorBlock: recursive gated convolution and MLP, each a pre-norm residual half.

Source: HorNet (arXiv 2207.14284), the 7x7 variant: depths 2, 3, 18, 2, orders 2 to 5 from the first stage to the
last.
"""

from typing import Annotated

from pydantic import Field

from quadnas.blocks.base import BLOCKS, MetaFormerBlock, Ports
from quadnas.errors import ConfigError
from quadnas.latency.kernels import Operator
from quadnas.ops.gated_convolution import GatedConvolutionMixer, gated_convolution_operators


@BLOCKS.register("hor")
class Hor(MetaFormerBlock):
    """HorBlock with gated convolution of ``order``: so many factors are multiplied at every position."""

    order: Annotated[int, Field(ge=2, le=5)]

    def check(self, ports: Ports) -> None:
        """Every gate but the last is half as wide as the next."""
        super().check(ports)
        unit = 2 ** (self.order - 1)
        if ports.channels_in % unit:
            raise ConfigError(
                f"block 'hor' of order {self.order} halves its channels {self.order - 1} times: it needs a "
                f"multiple of {unit}, not {ports.channels_in} channels; use another width or a lower order"
            )

    def mixer(self, channels: int) -> GatedConvolutionMixer:
        """The recursive gated convolution."""
        return GatedConvolutionMixer(channels, self.order)

    def mixer_operators(self, channels: int, height: int, width: int) -> list[Operator]:
        """1x1 convolutions, one depthwise, splits and products."""
        return gated_convolution_operators(channels, self.order, height, width)
