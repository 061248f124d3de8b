"""Non-overlapping patch convolutions: the stem and the down-sampling layers of ConvNeXt-style pyramids.

Source: QuadraNet (arXiv 2311.17956) follows ConvNeXt: stem 4x4 stride 4 then LayerNorm; between stages LayerNorm
then 2x2 stride 2.
"""

from torch import nn

from quadnas.blocks.base import BLOCKS, Block, Ports
from quadnas.latency.kernels import Kernel, Operator
from quadnas.ops.layer_norm import ChannelLayerNorm


def _patch_convolution(ports: Ports) -> nn.Conv2d:
    convolution = nn.Conv2d(ports.channels_in, ports.channels_out, ports.stride, ports.stride)
    nn.init.trunc_normal_(convolution.weight, std=0.02)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


class _Patch(Block):
    """Common to both: the map shrinks by the stride, an incomplete patch at the border is dropped."""

    def output_size(self, ports: Ports, height: int, width: int) -> tuple[int, int]:
        """Rounded down."""
        return height // ports.stride, width // ports.stride

    def _convolution(self, ports: Ports, height: int, width: int) -> Kernel:
        return Kernel(
            "conv", height, width, (ports.channels_in,), ports.channels_out, ports.stride, ports.stride
        )


@BLOCKS.register("patchify")
class Patchify(_Patch):
    """Stem: convolution with kernel = stride, then LayerNorm."""

    def build(self, ports: Ports) -> nn.Sequential:
        """A freshly initialised stem."""
        return nn.Sequential(_patch_convolution(ports), ChannelLayerNorm(ports.channels_out))

    def operators(self, ports: Ports, height: int, width: int) -> list[Operator]:
        """Convolution and LayerNorm."""
        channels = ports.channels_out
        size = self.output_size(ports, height, width)
        return [
            Operator(self._convolution(ports, height, width), (-1,)),
            Operator(Kernel("layernorm", *size, (channels,), channels), (0,)),
        ]


@BLOCKS.register("downsample")
class Downsample(_Patch):
    """Between stages: LayerNorm, then convolution with kernel = stride."""

    def build(self, ports: Ports) -> nn.Sequential:
        """A freshly initialised down-sampling layer."""
        return nn.Sequential(ChannelLayerNorm(ports.channels_in), _patch_convolution(ports))

    def operators(self, ports: Ports, height: int, width: int) -> list[Operator]:
        """LayerNorm and convolution."""
        channels = ports.channels_in
        return [
            Operator(Kernel("layernorm", height, width, (channels,), channels), (-1,)),
            Operator(self._convolution(ports, height, width), (0,)),
        ]
