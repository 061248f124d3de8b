"""The ConvNeXt block: depthwise convolution, LayerNorm and MLP in one residual branch.

Source: ConvNeXt (arXiv 2201.03545), section 2.6 and figure 4.
"""

from typing import Annotated

from pydantic import Field, field_validator

from quadnas.blocks.base import BLOCKS, Ports, ResidualBlock, require_odd
from quadnas.latency.kernels import Kernel, Operator, chain
from quadnas.ops.depthwise import DepthwiseMixer, QuadraticMixer
from quadnas.ops.factors import quadratic_operators
from quadnas.ops.layer_norm import ChannelLayerNorm
from quadnas.ops.mlp import MLP, mlp_operators
from quadnas.ops.residual import Residual, residual_operators


@BLOCKS.register("convnext")
class ConvNeXt(ResidualBlock):
    """x + g MLP(LN(depthwise(x))) with an odd ``kernel`` and an MLP of ``expansion`` times the width.

    With ``quadratic`` the depthwise convolution is the quadratic one, whose linear term is ConvNeXt's.
    """

    kernel: Annotated[int, Field(ge=1, le=31)] = 7
    expansion: Annotated[int, Field(ge=1, le=16)] = 4
    quadratic: bool = False

    _odd = field_validator("kernel")(require_odd)

    def build(self, ports: Ports) -> Residual:
        """A freshly initialised block."""
        channels = ports.channels_in
        depthwise = QuadraticMixer if self.quadratic else DepthwiseMixer
        return Residual(
            channels,
            self.layer_scale,
            mixer=depthwise(channels, self.kernel),
            norm=ChannelLayerNorm(channels),
            mlp=MLP(channels, self.expansion),
        )

    def operators(self, ports: Ports, height: int, width: int) -> list[Operator]:
        """Depthwise convolution, LayerNorm, MLP and the sum; layer scale is folded into the weights."""
        channels = ports.channels_in
        depthwise = Kernel("dwconv", height, width, (channels,), channels, self.kernel)
        mixer = quadratic_operators(depthwise) if self.quadratic else [Operator(depthwise, (-1,))]
        norm = Operator(Kernel("layernorm", height, width, (channels,), channels), (-1,))
        mlp = mlp_operators(height, width, channels, self.expansion)
        return residual_operators(chain(mixer, [norm], mlp))
