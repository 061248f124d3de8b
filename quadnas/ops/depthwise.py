"""Depthwise convolutions as mixers: the plain one and the quadratic one."""

import torch
from torch import Tensor, nn

from quadnas.ops.factors import QuadraticForm
from quadnas.ops.quadratic import QuadraticDepthwise
from quadnas.ops.residual import Mixer


class DepthwiseMixer(nn.Conv2d, Mixer):
    """Depthwise convolution with bias, an odd ``kernel`` and "same" zero padding: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels)
        nn.init.trunc_normal_(self.weight, std=0.02)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def deployed(self, scale: Tensor) -> nn.Conv2d:
        """The scaled convolution."""
        assert self.bias is not None
        return _convolution(self.weight * scale[:, None, None, None], self.bias * scale)


class QuadraticMixer(QuadraticDepthwise, Mixer):
    """The quadratic depthwise convolution as a mixer: (N, C, H, W) -> (N, C, H, W)."""

    def deployed(self, scale: Tensor) -> QuadraticForm:
        """Three plain convolutions; the first factor and the linear term are scaled."""
        one = torch.ones_like(scale)
        branches = zip(self.weight, self.bias, (scale, one, scale), strict=True)
        return QuadraticForm(
            *(_convolution(weight * by[:, None, None, None], bias * by) for weight, bias, by in branches)
        )


def _convolution(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """The convolution with the kernels ``weight`` (C, 1, K, K) and ``bias`` (C,), "same" padding."""
    channels, side = weight.shape[0], weight.shape[-1]
    convolution = nn.Conv2d(channels, channels, side, padding=side // 2, groups=channels, device="meta")
    convolution.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return convolution
