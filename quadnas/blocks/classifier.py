"""The classification head: global average pool, LayerNorm behind or before it or none, fully connected layer."""

from typing import Literal

from torch import Tensor, nn

from quadnas.blocks.base import BLOCKS, Block, Ports
from quadnas.latency.kernels import Kernel, Operator, chain
from quadnas.ops.layer_norm import ChannelLayerNorm, layer_norm

Norm = Literal["after-pool", "before-pool", "none"]


class ClassifierModule(nn.Module):
    """(N, C, H, W) -> logits (N, classes)."""

    def __init__(self, channels: int, classes: int, norm: Norm) -> None:
        super().__init__()
        self.norm_map = ChannelLayerNorm(channels) if norm == "before-pool" else nn.Identity()
        self.norm = layer_norm(channels) if norm == "after-pool" else nn.Identity()
        self.linear = nn.Linear(channels, classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        logits: Tensor = self.linear(self.norm(self.norm_map(x).mean((2, 3))))
        return logits


@BLOCKS.register("classifier")
class Classifier(Block):
    """Ends a network; ``channels_out`` of its layer is the number of classes.

    ``norm`` puts a LayerNorm after the pool, as ConvNeXt and QuadraNet do, before it at every position, as Swin
    does, or nowhere, as in mobile networks.
    """

    norm: Norm = "after-pool"

    def output_size(self, ports: Ports, height: int, width: int) -> tuple[int, int]:
        """One value per class."""
        return 1, 1

    def build(self, ports: Ports) -> ClassifierModule:
        """A freshly initialised head."""
        return ClassifierModule(ports.channels_in, ports.channels_out, self.norm)

    def operators(self, ports: Ports, height: int, width: int) -> list[Operator]:
        """Pool, LayerNorm on one position after or on all before it, fully connected."""
        channels = ports.channels_in
        pool = Operator(Kernel("global-pool", height, width, (channels,), channels), (-1,))
        norm_size = (height, width) if self.norm == "before-pool" else (1, 1)
        norm = Operator(Kernel("layernorm", *norm_size, (channels,), channels), (-1,))
        front = {"after-pool": [pool, norm], "before-pool": [norm, pool], "none": [pool]}[self.norm]
        linear = Operator(Kernel("fc", 1, 1, (channels,), ports.channels_out), (-1,))
        return chain(*([operator] for operator in (*front, linear)))
