"""The MLP over channels: the second half of a MetaFormer block, in its linear and quadratic forms."""

from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.latency.kernels import Kernel, Operator, chain
from quadnas.ops.factors import quadratic_operators
from quadnas.ops.pointwise import Linear, QuadraticLinear
from quadnas.ops.residual import Mixer


class MLP(Mixer):
    """FC2(GELU(FC1(x))) at every position, FC1 to ``expansion`` times the width and FC2 back, with biases.

    The first ``quadratic_layers`` (0 to 2) of the two are quadratic: (A u) o (B u) + C u.
    """

    def __init__(self, channels: int, expansion: int, quadratic_layers: int = 0) -> None:
        super().__init__()
        wide = expansion * channels
        first, second = (QuadraticLinear if quadratic_layers > number else Linear for number in (0, 1))
        self.expand = first(channels, wide)
        self.project = second(wide, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W), channels-last."""
        return _mlp(x, self.expand, self.project)

    def deployed(self, scale: Tensor) -> "DeployedMLP":
        """Plain linear layers; the second is scaled."""
        one = scale.new_ones(self.expand.out_features)
        return DeployedMLP(self.expand.deployed(one), self.project.deployed(scale))


class DeployedMLP(nn.Module):
    """project(GELU(expand(x))) at every position: (N, C, H, W) -> (N, C, H, W), channels-last."""

    def __init__(self, expand: nn.Module, project: nn.Module) -> None:
        super().__init__()
        self.expand = expand
        self.project = project

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return _mlp(x, self.expand, self.project)


def mlp_operators(
    height: int, width: int, channels: int, expansion: int, quadratic_layers: int = 0
) -> list[Operator]:
    """Two 1x1 convolutions with GELU between them; a quadratic one is three, a product and a sum."""
    wide = expansion * channels

    def layer(number: int, cin: int, cout: int) -> list[Operator]:
        convolution = Kernel("conv", height, width, (cin,), cout)
        quadratic = quadratic_layers > number
        return quadratic_operators(convolution) if quadratic else [Operator(convolution, (-1,))]

    gelu = Operator(Kernel("gelu", height, width, (wide,), wide), (-1,))
    return chain(layer(0, channels, wide), [gelu], layer(1, wide, channels))


def _mlp(x: Tensor, expand: nn.Module, project: nn.Module) -> Tensor:
    y: Tensor = project(F.gelu(expand(x.permute(0, 2, 3, 1))))
    return y.permute(0, 3, 1, 2)
