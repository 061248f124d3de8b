"""A QuadraBlock of operators that every device prices: what normalises and activates folds into convolutions.

x + BN(Q(x)), then x + BN(FC2(ReLU(BN(FC1(x))))): QuadraNet's block (arXiv 2311.17956) with batch normalisation
behind instead of LayerNorm before, and ReLU instead of GELU, as mobile networks have them.
"""

from collections import OrderedDict
from typing import Annotated

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from quadnas.blocks.base import BLOCKS, Block, Ports, require_odd, require_same_shape
from quadnas.latency.kernels import Kernel, Operator, chain
from quadnas.ops.depthwise import QuadraticMixer
from quadnas.ops.factors import QuadraticForm, quadratic_operators
from quadnas.ops.residual import Mixer, Residual, residual_operators


class NormedQuadratic(Mixer):
    """BN((Wa*x) o (Wb*x) + Wc*x): (N, C, H, W) -> (N, C, H, W), channels-last."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.quadratic = QuadraticMixer(channels, kernel)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y: Tensor = self.norm(self.quadratic(x))
        return y

    def deployed(self, scale: Tensor) -> QuadraticForm:
        """Three plain convolutions: Wa and Wc take in the norm's factor, the bias of Wc its shift."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        form = self.quadratic.deployed(gain * scale)
        assert isinstance(form.linear, nn.Conv2d) and form.linear.bias is not None
        form.linear.bias += (norm.bias - gain * norm.running_mean) * scale
        return form


class NormedMLP(Mixer):
    """BN(FC2(ReLU(BN(FC1(x))))) at every position: (N, C, H, W) -> (N, C, H, W), channels-last."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        wide = expansion * channels
        self.expand = nn.Conv2d(channels, wide, 1, bias=False)
        self.norm_wide = nn.BatchNorm2d(wide)
        self.project = nn.Conv2d(wide, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        for convolution in (self.expand, self.project):
            nn.init.trunc_normal_(convolution.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y: Tensor = self.norm(self.project(torch.relu(self.norm_wide(self.expand(x)))))
        return y

    def deployed(self, scale: Tensor) -> nn.Sequential:
        """Two plain 1x1 convolutions around ReLU."""
        one = scale.new_ones(self.expand.out_channels)
        return nn.Sequential(
            _folded(self.expand, self.norm_wide, one), nn.ReLU(), _folded(self.project, self.norm, scale)
        )


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d, scale: Tensor) -> nn.Conv2d:
    """``scale`` (C,) times the norm's output, as one 1x1 convolution."""
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    folded = nn.Conv2d(convolution.in_channels, convolution.out_channels, 1, device="meta")
    state = {"weight": weight * scale[:, None, None, None], "bias": bias * scale}
    folded.load_state_dict(state, assign=True)
    return folded


class QuadraBNModule(nn.Sequential):
    """Both residual halves, each normalised behind: (N, C, H, W) -> (N, C, H, W), channels-last."""

    def __init__(self, channels: int, kernel: int, expansion: int) -> None:
        halves: dict[str, Mixer] = {
            "spatial": NormedQuadratic(channels, kernel),
            "channel": NormedMLP(channels, expansion),
        }
        super().__init__(
            OrderedDict((name, Residual(channels, None, mixer=half)) for name, half in halves.items())
        )


@BLOCKS.register("quadra_bn")
class QuadraBN(Block):
    """Deployable QuadraBlock with an odd depthwise ``kernel`` and an MLP of ``expansion`` times the width."""

    entangled = frozenset({"kernel"})

    kernel: Annotated[int, Field(ge=1, le=31)]
    expansion: Annotated[int, Field(ge=1, le=16)]

    _odd = field_validator("kernel")(require_odd)

    def check(self, ports: Ports) -> None:
        """Both halves are residual, so the shape cannot change."""
        require_same_shape("quadra_bn", ports)

    def build(self, ports: Ports) -> QuadraBNModule:
        """A freshly initialised block."""
        return QuadraBNModule(ports.channels_in, self.kernel, self.expansion)

    def deployed(self, module: nn.Module) -> nn.Sequential:
        """With batch normalisation inside the convolutions."""
        assert isinstance(module, QuadraBNModule)
        halves = {name: half for name, half in module.named_children() if isinstance(half, Residual)}
        return nn.Sequential(OrderedDict((name, half.deployed()) for name, half in halves.items()))

    def operators(self, ports: Ports, height: int, width: int) -> list[Operator]:
        """Three depthwise convolutions, product, two sums; 1x1 convolution with ReLU, 1x1 convolution, sum."""
        narrow, wide = ports.channels_in, self.expansion * ports.channels_in

        def operator(op: str, cin: int, cout: int) -> list[Operator]:
            return [Operator(Kernel(op, height, width, (cin,), cout), (-1,))]

        quadratic = quadratic_operators(Kernel("dwconv", height, width, (narrow,), narrow, self.kernel))
        mlp = chain(
            operator("conv", narrow, wide), operator("relu", wide, wide), operator("conv", wide, narrow)
        )
        return chain(residual_operators(quadratic), residual_operators(mlp))
