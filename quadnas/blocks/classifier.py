"""The classification head: global average pool, LayerNorm or none, fully connected layer."""

from torch import Tensor, nn

from quadnas.blocks.base import BLOCKS, Block, Ports
from quadnas.latency.kernels import Kernel, Operator
from quadnas.ops.layer_norm import layer_norm


class ClassifierModule(nn.Module):
    """(N, C, H, W) -> logits (N, classes)."""

    def __init__(self, channels: int, classes: int, *, norm: bool) -> None:
        super().__init__()
        self.norm = layer_norm(channels) if norm else nn.Identity()
        self.linear = nn.Linear(channels, classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        logits: Tensor = self.linear(self.norm(x.mean((2, 3))))
        return logits


@BLOCKS.register("classifier")
class Classifier(Block):
    """Ends a network; ``channels_out`` of its layer is the number of classes.

    ``norm`` puts a LayerNorm behind the pool, as ConvNeXt and QuadraNet do and mobile networks do not.
    """

    norm: bool = True

    def output_size(self, ports: Ports, height: int, width: int) -> tuple[int, int]:
        """One value per class."""
        return 1, 1

    def build(self, ports: Ports) -> ClassifierModule:
        """A freshly initialised head."""
        return ClassifierModule(ports.channels_in, ports.channels_out, norm=self.norm)

    def operators(self, ports: Ports, height: int, width: int) -> list[Operator]:
        """Pool, LayerNorm on one position, fully connected."""
        channels = (ports.channels_in,)
        norm = Operator(Kernel("layernorm", 1, 1, channels, ports.channels_in), (0,))
        return [
            Operator(Kernel("global-pool", height, width, channels, ports.channels_in), (-1,)),
            *([norm] if self.norm else []),
            Operator(Kernel("fc", 1, 1, channels, ports.channels_out), (int(self.norm),)),
        ]
