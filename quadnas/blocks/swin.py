"""The SwinBlock: attention in (shifted) windows and MLP, each a pre-norm residual half.

Source: Swin Transformer (arXiv 2103.14030); blocks with shift 0 and 3 take turns, without layer scale.
"""

from typing import Annotated, Literal

from pydantic import Field

from quadnas.blocks.base import BLOCKS, MetaFormerBlock, Ports
from quadnas.errors import ConfigError
from quadnas.latency.kernels import Operator
from quadnas.ops.window_attention import HEAD_CHANNELS, WindowAttention, window_attention_operators


@BLOCKS.register("swin")
class Swin(MetaFormerBlock):
    """SwinBlock with heads of 32 channels in 7x7 windows, which a ``shift`` of 3 moves by as many pixels."""

    shift: Literal[0, 3] = 0
    layer_scale: Annotated[float, Field(gt=0)] | None = None

    def check(self, ports: Ports) -> None:
        """Every head has 32 channels."""
        super().check(ports)
        if ports.channels_in % HEAD_CHANNELS:
            raise ConfigError(
                f"block 'swin' has heads of {HEAD_CHANNELS} channels: it needs a multiple of that, not "
                f"{ports.channels_in} channels; use another width"
            )

    def mixer(self, channels: int) -> WindowAttention:
        """The attention."""
        return WindowAttention(channels, self.shift)

    def mixer_operators(self, channels: int, height: int, width: int) -> list[Operator]:
        """1x1 convolutions, products of matrices, softmax, and the copies between map and windows."""
        return window_attention_operators(channels, height, width, self.shift)
