"""The QuadraBlock: quadratic depthwise convolution and MLP, each a pre-norm residual half.

Source: QuadraNet (arXiv 2311.17956), figure 3; layer scale and biases as in the authors' published model.
"""

from copy import deepcopy
from typing import Annotated, Self

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.blocks.base import BLOCKS, Block, Ports, require_odd, require_same_shape
from quadnas.latency.kernels import Kernel, Operator
from quadnas.ops.layer_norm import layer_norm
from quadnas.ops.quadratic import QuadraticDepthwise


class QuadraModule(nn.Module):
    """x + g1 Q(LN(x)), then x + g2 FC2(GELU(FC1(LN(x)))): (N, C, H, W) -> (N, C, H, W), channels-last."""

    def __init__(self, channels: int, kernel: int, expansion: int, layer_scale: float) -> None:
        super().__init__()
        self.norm_spatial = layer_norm(channels)
        self.quadratic = QuadraticDepthwise(channels, kernel)
        self.scale_spatial = nn.Parameter(torch.full((channels,), layer_scale))
        self.norm_mlp = layer_norm(channels)
        self.expand = nn.Linear(channels, expansion * channels)
        self.project = nn.Linear(expansion * channels, channels)
        self.scale_mlp = nn.Parameter(torch.full((channels,), layer_scale))
        for linear in (self.expand, self.project):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        x = x.permute(0, 2, 3, 1)
        mixed = self.quadratic(self.norm_spatial(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.scale_spatial * mixed
        x = x + self.scale_mlp * self.project(F.gelu(self.expand(self.norm_mlp(x))))
        return x.permute(0, 3, 1, 2)


class DeployedQuadraModule(nn.Module):
    """The same function with layer scale folded into Wa, Wc and FC2, and three plain convolutions."""

    def __init__(self, trained: QuadraModule) -> None:
        super().__init__()
        one, scale = torch.ones_like(trained.scale_spatial), trained.scale_spatial
        weights, biases = trained.quadratic.weight, trained.quadratic.bias
        self.factor_a, self.factor_b, self.linear = (
            _depthwise(weight * by[:, None, None, None], bias * by)
            for weight, bias, by in zip(weights, biases, (scale, one, scale), strict=True)
        )
        self.norm_spatial, self.norm_mlp = trained.norm_spatial, trained.norm_mlp
        self.expand, self.project = trained.expand, deepcopy(trained.project)
        self.project.weight.mul_(trained.scale_mlp[:, None])
        self.project.bias.mul_(trained.scale_mlp)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        x = x.permute(0, 2, 3, 1)
        u = self.norm_spatial(x).permute(0, 3, 1, 2)
        x = x + (self.factor_a(u) * self.factor_b(u) + self.linear(u)).permute(0, 2, 3, 1)
        x = x + self.project(F.gelu(self.expand(self.norm_mlp(x))))
        return x.permute(0, 3, 1, 2)


def _depthwise(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """The convolution with the kernels ``weight`` (C, 1, K, K) and ``bias`` (C,), "same" padding."""
    channels, side = weight.shape[0], weight.shape[-1]
    convolution = nn.Conv2d(channels, channels, side, padding=side // 2, groups=channels)
    convolution.load_state_dict({"weight": weight, "bias": bias})
    return convolution


@BLOCKS.register("quadra")
class Quadra(Block):
    """QuadraBlock with an odd depthwise ``kernel`` and an MLP of ``expansion`` times the width."""

    kernel: Annotated[int, Field(ge=1, le=31)]
    expansion: Annotated[int, Field(ge=1, le=16)]
    layer_scale: Annotated[float, Field(gt=0)] = 1e-6

    _odd = field_validator("kernel")(require_odd)

    def check(self, ports: Ports) -> None:
        """Both halves are residual, so the shape cannot change."""
        require_same_shape("quadra", ports)

    def build(self, ports: Ports) -> QuadraModule:
        """A freshly initialised QuadraBlock."""
        return QuadraModule(ports.channels_in, self.kernel, self.expansion, self.layer_scale)

    @torch.no_grad()
    def deployed(self, module: nn.Module) -> nn.Module:
        """Without layer scale."""
        assert isinstance(module, QuadraModule)
        return DeployedQuadraModule(module)

    def operators(self, ports: Ports, height: int, width: int) -> list[Operator]:
        """Layer scale costs nothing: at deployment it is folded into Wa, Wc and FC2."""
        narrow, wide = ports.channels_in, self.expansion * ports.channels_in

        def kernel(op: str, inputs: tuple[int, ...], cout: int, side: int = 1) -> Kernel:
            return Kernel(op, height, width, inputs, cout, side)

        one, pair = (narrow,), (narrow, narrow)
        depthwise = Operator(kernel("dwconv", one, narrow, self.kernel), (0,))
        return [
            Operator(kernel("layernorm", one, narrow), (-1,)),
            depthwise,
            depthwise,
            depthwise,
            Operator(kernel("mul", pair, narrow), (1, 2)),
            Operator(kernel("add", pair, narrow), (4, 3)),
            Operator(kernel("add", pair, narrow), (-1, 5)),
            Operator(kernel("layernorm", one, narrow), (6,)),
            Operator(kernel("conv", one, wide), (7,)),
            Operator(kernel("gelu", (wide,), wide), (8,)),
            Operator(kernel("conv", (wide,), narrow), (9,)),
            Operator(kernel("add", pair, narrow), (6, 10)),
        ]

    def in_supernet(self) -> Self:
        """Layer scale 0.1: with 1e-6 the architecture gradient would vanish in the first steps."""
        return self.model_copy(update={"layer_scale": 0.1})
