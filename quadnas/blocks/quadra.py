"""The QuadraBlock: quadratic depthwise convolution and MLP, each a pre-norm residual half.

Source: QuadraNet (arXiv 2311.17956), figure 3 and table V; layer scale and biases as in the authors' published
model.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from quadnas.blocks.base import BLOCKS, MetaFormerBlock, require_odd
from quadnas.latency.kernels import Kernel, Operator
from quadnas.ops.depthwise import QuadraticMixer
from quadnas.ops.factors import quadratic_operators
from quadnas.ops.mlp import MLP, mlp_operators


@BLOCKS.register("quadra")
class Quadra(MetaFormerBlock):
    """QuadraBlock with an odd depthwise ``kernel``; the first ``quadratic_layers`` of the MLP are quadratic too.

    1 is "+conv1" of the source, 2 is "+conv1+conv2".
    """

    kernel: Annotated[int, Field(ge=1, le=31)]
    quadratic_layers: Literal[0, 1, 2] = 0

    _odd = field_validator("kernel")(require_odd)

    def mixer(self, channels: int) -> QuadraticMixer:
        """The quadratic depthwise convolution."""
        return QuadraticMixer(channels, self.kernel)

    def mixer_operators(self, channels: int, height: int, width: int) -> list[Operator]:
        """Three depthwise convolutions, a product and a sum."""
        return quadratic_operators(Kernel("dwconv", height, width, (channels,), channels, self.kernel))

    def mlp(self, channels: int) -> MLP:
        """The MLP, its first layers quadratic."""
        return MLP(channels, self.expansion, self.quadratic_layers)

    def mlp_operators(self, channels: int, height: int, width: int) -> list[Operator]:
        """Two 1x1 convolutions, or three for a quadratic one, and GELU."""
        return mlp_operators(height, width, channels, self.expansion, self.quadratic_layers)
