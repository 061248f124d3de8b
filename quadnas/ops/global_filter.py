"""Quadratic global filter: three circular convolutions as large as the map, by Fourier transform.

Source: the filter is GFNet's (arXiv 2107.00645); the quadratic form of three stands for the global receptive field
of QuadraNet's table IV (arXiv 2311.17956). The published model file of its authors takes HorNet's variant of the
filter instead, which is global in one half of the channels and has a LayerNorm before and after.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.latency.kernels import Kernel, Operator
from quadnas.ops.residual import Mixer


class GlobalFilter(nn.Module):
    """(Ga*u) o (Gb*u) + Gc*u with circular filters of the map's own size: (N, C, H, W) -> (N, C, H, W).

    Channels-last. Parameter: weight (3, size, size // 2 + 1, C, 2), the responses (real, imaginary) of Ga, Gb, Gc
    at the frequencies of a map of side ``size``. On another map they are interpolated (bicubic, as by GFNet),
    which keeps their strength. The transforms run in single precision at least.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        height, width = x.shape[-2:]
        u = x.to(torch.promote_types(x.dtype, torch.float32)).permute(0, 2, 3, 1)
        spectrum = torch.fft.rfft2(u, dim=(1, 2), norm="ortho")
        a, b, c = (
            torch.fft.irfft2(spectrum * response, s=(height, width), dim=(1, 2), norm="ortho")
            for response in self._responses(height, width // 2 + 1)
        )
        return torch.addcmul(c, a, b).to(x.dtype).permute(0, 3, 1, 2)

    def _responses(self, rows: int, columns: int) -> list[Tensor]:
        """Three times complex (rows, columns, C); complex tensors are not cut, which no export knows."""
        weight = self.weight
        if weight.shape[1:3] != (rows, columns):
            planes = weight.flatten(3).permute(0, 3, 1, 2)
            planes = F.interpolate(planes, size=(rows, columns), mode="bicubic", align_corners=True)
            weight = planes.permute(0, 2, 3, 1).unflatten(3, (-1, 2)).contiguous()
        return [torch.view_as_complex(response) for response in weight.unbind()]


class GlobalFilterMixer(GlobalFilter, Mixer):
    """The quadratic global filter of ``channels`` for maps of side ``size``."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__(nn.init.trunc_normal_(torch.empty(3, size, size // 2 + 1, channels, 2), std=0.02))

    def deployed(self, scale: Tensor) -> GlobalFilter:
        """The first factor and the linear term are scaled."""
        by = torch.stack([scale, torch.ones_like(scale), scale])
        return GlobalFilter(self.weight.detach() * by[:, None, None, :, None])


def global_filter_operators(channels: int, height: int, width: int) -> list[Operator]:
    """One transform, per term a complex product and a transform back, then a product and a sum.

    Transforms (``fft``) and products count no multiply-accumulates, like everything but convolutions and matrices.
    """

    def kernel(op: str, *inputs: int) -> Kernel:
        return Kernel(op, height, width, inputs, channels)

    half = Kernel("mul", height, width // 2 + 1, (2 * channels, 2 * channels), 2 * channels)
    filtered = [
        o for i in range(3) for o in (Operator(half, (0,)), Operator(kernel("fft", channels), (2 * i + 1,)))
    ]
    return [
        Operator(kernel("fft", channels), (-1,)),
        *filtered,
        Operator(kernel("mul", channels, channels), (2, 4)),
        Operator(kernel("add", channels, channels), (7, 6)),
    ]
