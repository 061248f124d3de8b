"""The inverted residual of MobileNetV2, MnasNet and ProxylessNAS.

Source: MobileNetV2 (arXiv 1801.04381), section 3.3 and table 1; the residual joins blocks that keep the shape.
"""

from typing import Annotated

from pydantic import Field, field_validator
from torch import Tensor, nn

from quadnas.blocks.base import BLOCKS, Block, Ports, require_odd
from quadnas.latency.kernels import Kernel, Operator
from quadnas.ops.conv_bn import ConvBN, conv_bn_operators, require_mobile_stride


class MBConvModule(nn.Module):
    """``layers`` in sequence, plus the input if ``residual``: (N, C, H, W) -> (N, C', H', W')."""

    def __init__(self, layers: nn.Sequential, *, residual: bool) -> None:
        super().__init__()
        self.layers = layers
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


@BLOCKS.register("mbconv")
class MBConv(Block):
    """1x1 convolution to ``expansion`` times the width (none for 1), depthwise with an odd ``kernel``, 1x1 back.

    Batch normalisation behind each, ReLU6 behind the first two.
    """

    entangled = frozenset({"kernel"})

    kernel: Annotated[int, Field(ge=1, le=31)] = 3
    expansion: Annotated[int, Field(ge=1, le=16)]

    _odd = field_validator("kernel")(require_odd)

    def check(self, ports: Ports) -> None:
        """Stride 1 or 2."""
        require_mobile_stride("mbconv", ports.stride)

    def build(self, ports: Ports) -> MBConvModule:
        """A freshly initialised inverted residual."""
        narrow, wide = ports.channels_in, self.expansion * ports.channels_in
        layers = [
            *([ConvBN(narrow, wide)] if wide > narrow else []),
            ConvBN(wide, wide, self.kernel, ports.stride, groups=wide),
            ConvBN(wide, ports.channels_out, activation=False),
        ]
        return MBConvModule(nn.Sequential(*layers), residual=_residual(ports))

    def deployed(self, module: nn.Module) -> nn.Module:
        """With batch normalisation inside the convolutions."""
        assert isinstance(module, MBConvModule)
        layers = (layer.folded() for layer in module.layers if isinstance(layer, ConvBN))
        return MBConvModule(nn.Sequential(*layers), residual=module.residual)

    def operators(self, ports: Ports, height: int, width: int) -> list[Operator]:
        """Two or three convolutions with what follows them, and the sum with the input."""
        narrow, wide = ports.channels_in, self.expansion * ports.channels_in
        out = self.output_size(ports, height, width)
        found: list[Operator] = []
        if wide > narrow:
            found += conv_bn_operators(Kernel("conv", height, width, (narrow,), wide), -1, 0)
        depthwise = Kernel("dwconv", height, width, (wide,), wide, self.kernel, ports.stride)
        found += conv_bn_operators(depthwise, len(found) - 1, len(found))
        project = Kernel("conv", *out, (wide,), ports.channels_out)
        found += conv_bn_operators(project, len(found) - 1, len(found), activation=False)
        if _residual(ports):
            found.append(Operator(Kernel("add", *out, (narrow, narrow), narrow), (-1, len(found) - 1)))
        return found


def _residual(ports: Ports) -> bool:
    return ports.stride == 1 and ports.channels_in == ports.channels_out
