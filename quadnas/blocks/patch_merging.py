"""Patch merging: Swin's down-sampling layer.

Source: Swin Transformer (arXiv 2103.14030), section 3.1.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.blocks.base import BLOCKS, Block, Ports
from quadnas.errors import ConfigError
from quadnas.latency.kernels import Kernel, Operator, chain
from quadnas.ops.layer_norm import layer_norm


class PatchMergingModule(nn.Module):
    """2x2 neighbours side by side, LayerNorm, linear layer: (N, C, H, W) -> (N, C', ceil(H / 2), ceil(W / 2)).

    The neighbours stand in the order (0, 0), (1, 0), (0, 1), (1, 1) of (row, column); an odd side is padded with
    zeros.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm = layer_norm(4 * channels_in)
        self.linear = nn.Linear(4 * channels_in, channels_out, bias=False)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', ceil(H / 2), ceil(W / 2)), channels-last."""
        height, width = x.shape[-2:]
        cells = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, width % 2, 0, height % 2))
        cells = cells.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2, 5)
        return self.linear(self.norm(cells.flatten(3))).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


@BLOCKS.register("patch_merging")
class PatchMerging(Block):
    """Halves the sides of the map; Swin doubles the channels with it."""

    def check(self, ports: Ports) -> None:
        """Two by two pixels become one."""
        if ports.stride != 2:
            raise ConfigError(f"block 'patch_merging' has stride 2, not {ports.stride}; write 'stride: 2'")

    def build(self, ports: Ports) -> PatchMergingModule:
        """A freshly initialised layer."""
        return PatchMergingModule(ports.channels_in, ports.channels_out)

    def operators(self, ports: Ports, height: int, width: int) -> list[Operator]:
        """Padding of odd sides, the copy that brings neighbours together, LayerNorm, 1x1 convolution."""
        channels, size = ports.channels_in, self.output_size(ports, height, width)
        pad = Kernel("pad", height, width, (channels,), channels)
        kernels = [
            *([pad] if height % 2 or width % 2 else []),
            Kernel("transpose", 2 * size[0], 2 * size[1], (channels,), channels),
            Kernel("layernorm", *size, (4 * channels,), 4 * channels),
            Kernel("conv", *size, (4 * channels,), ports.channels_out),
        ]
        return chain(*([Operator(kernel, (-1,))] for kernel in kernels))
