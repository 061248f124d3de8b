"""Convolution, batch normalisation and ReLU6 as a layer: stem and last convolution of mobile networks."""

from typing import Annotated

from pydantic import Field, field_validator
from torch import nn

from quadnas.blocks.base import BLOCKS, Block, Ports, require_odd
from quadnas.latency.kernels import Kernel, Operator
from quadnas.ops.conv_bn import ConvBN, conv_bn_operators, require_mobile_stride


@BLOCKS.register("conv_bn")
class ConvBNBlock(Block):
    """A dense convolution with an odd ``kernel``, batch normalisation and ReLU6."""

    kernel: Annotated[int, Field(ge=1, le=31)] = 3

    _odd = field_validator("kernel")(require_odd)

    def check(self, ports: Ports) -> None:
        """Stride 1 or 2."""
        require_mobile_stride("conv_bn", ports.stride)

    def build(self, ports: Ports) -> ConvBN:
        """A freshly initialised layer."""
        return ConvBN(ports.channels_in, ports.channels_out, self.kernel, ports.stride)

    def deployed(self, module: nn.Module) -> nn.Module:
        """With batch normalisation inside the convolution."""
        assert isinstance(module, ConvBN)
        return module.folded()

    def operators(self, ports: Ports, height: int, width: int) -> list[Operator]:
        """Convolution, batch normalisation, activation."""
        convolution = Kernel(
            "conv", height, width, (ports.channels_in,), ports.channels_out, self.kernel, ports.stride
        )
        return conv_bn_operators(convolution, -1, 0)
