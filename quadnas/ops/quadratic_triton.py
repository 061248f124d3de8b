"""The quadratic depthwise convolution y = (Wa*x+ba) o (Wb*x+bb) + (Wc*x+bc) as fused Triton kernels.

Traffic, in element sizes per element of x: forward 2 (read x, write y; taps come from L1), where eager moves 12
and stores two factors. Backward 12: factors (read x, g; write g o a, g o b), tap gradients (read x and three
gradients), input gradient (read three, write one). Keeping g o a and g o b out of memory would save 4 of the 12,
but then the input gradient needs both factors on its halo: at 7x7 and tiles of 14x14 that is (20/14)^2 = 2 times
the 98 multiply-adds of recomputing them, and arithmetic is the tighter limit. Per element in fp32, forward and
backward: 539 multiply-adds and 56 bytes, 55 ps and 36 ps on an A100 (19.5 TFLOP/s, 1.56 TB/s), 16 ps and 17 ps on
an H100 (67 TFLOP/s, 3.35 TB/s); bf16 halves the bytes alone. So two passes, and kernels built for arithmetic: a
thread owns a strip of neighbouring outputs of one channel, so that a loaded pixel serves up to 3 * K of its sums.
64@56x56 and 256@14x14 differ only in the number of strips: both fill the device at batch 64.

The strip runs along W and the lanes along C in channels-last; in contiguous memory the strip runs along H and the
lanes along W, the same kernels on the transposed map. Only a gradient whose layout is not that of x is converted.
A program's strips lie on neighbouring lines and share their halo in L1: 16 lines of strips of 14 read from L2 only
twice what they own.
Sums are in fp32, in an order that shape, layout and dtype decide: repeated calls give the same bits.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from quadnas.ops import quadratic_kernels as kernels
from quadnas.ops.quadratic_torch import Gradients, layout, output_shape

CACHE_LINE_BYTES = 128
MAX_STRIP_SUMS = 28  # of a thread's 255 registers, for one channel of two
MAX_TAP_SUMS = 84  # of the same, besides a strip; 147, a 7x7 kernel in one pass, spills
TAP_PROGRAMS = 768  # three waves of two on each of an H100's 132 multiprocessors; more would cost workspace
MIN_TAP_STEPS = 8  # per program, against the cost of its 3 * (K * K + 1) sums


@dataclass(frozen=True)
class _Walk:
    """Strips on the maps of ``owner`` and the maps ``read`` for them, both (N, C, lines, positions)."""

    owner: Tensor
    read: Tensor
    strip: int
    tile: int

    @property
    def strips(self) -> int:
        batch, _, lines, length = self.owner.shape
        return int(batch * lines * triton.cdiv(length, self.strip))

    @property
    def geometry(self) -> tuple[Any, ...]:
        """Sizes, strides, steps along the positions and channels, as all kernels take them."""
        read, owner = self.read, self.owner
        sizes = (self.strips, *read.shape[2:], *owner.shape[2:])
        return sizes, read.stride()[:3], owner.stride()[:3], read.stride(3), owner.stride(3), owner.shape[1]

    def grid(self, meta: dict[str, Any]) -> tuple[int, int]:
        pixels, channels = meta["lanes"] // self.tile, self.owner.shape[1]
        return triton.cdiv(self.strips, pixels), triton.cdiv(channels, self.tile)


def _walk(owner: Tensor, read: Tensor, channels_last: bool, sums: int, multiple: int = 1) -> _Walk:
    """The strips for a kernel that holds ``sums`` numbers per position, in lengths of a ``multiple``.

    The fewest threads are best, since each costs about three positions more, for its taps and halo.
    """
    if not channels_last:
        owner, read = owner.mT, read.mT
    lengths = [n for n in (14, 8, 7, 4) if n * sums <= MAX_STRIP_SUMS and n % multiple == 0] or [multiple]
    strip = min(lengths, key=lambda n: triton.cdiv(owner.shape[3], n) * (n + 3))
    line = CACHE_LINE_BYTES // owner.element_size()
    tile = min(line, triton.next_power_of_2(owner.shape[1])) if channels_last else 1
    return _Walk(owner, read, strip, tile)


def _taps(weight: Tensor, channels_last: bool) -> Tensor:
    """(3, C, 1, K, K) to (3, K, K, C), the taps of a line side by side."""
    return weight.squeeze(2).permute((0, 2, 3, 1) if channels_last else (0, 3, 2, 1)).contiguous()


def _parameter_sums(walk: _Walk, grads: tuple[Tensor, ...], side: int, stride: int) -> Tensor:
    """(3, K * K + 1, C): the gradients of the taps, line by line, and of the bias."""
    lanes, channels = 128, walk.owner.shape[1]
    pixels, blocks = lanes // walk.tile, triton.cdiv(channels, walk.tile)
    rows = min(side, max(1, MAX_TAP_SUMS // (3 * side)))
    groups, steps = triton.cdiv(side, rows), triton.cdiv(walk.strips, pixels)
    programs = min(triton.cdiv(TAP_PROGRAMS, blocks * groups), triton.cdiv(steps, MIN_TAP_STEPS))
    share = triton.cdiv(steps, programs)
    shares = triton.cdiv(steps, share)
    sums = torch.empty((shares, 3, side * side + 1, channels), dtype=torch.float32, device=walk.owner.device)
    kernels.taps_kernel[groups, shares, blocks](
        walk.read, grads, sums, share * pixels, *walk.geometry, side, stride, walk.strip, walk.tile, lanes, rows,
        num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return sums.sum(0)


def forward(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """The convolution with "same" padding, in the layout of x.

    x: (N, C, H, W), not empty, fp32, bf16 or fp16, any strides; weight: (3, C, 1, K, K), K odd, and bias: (3, C),
    in the order a, b, c, fp32 or x's dtype. Returns (N, C, ceil(H / stride), ceil(W / stride)) in x's dtype.
    """
    channels_last = layout(x) is torch.channels_last
    y = torch.empty(output_shape(x, stride), dtype=x.dtype, device=x.device, memory_format=layout(x))
    walk = _walk(y, x, channels_last, sums=3)
    with torch.cuda.device_of(x):
        kernels.forward_kernel[walk.grid](
            walk.read, _taps(weight, channels_last), bias.contiguous(), walk.owner, *walk.geometry,
            weight.shape[-1], stride, walk.strip, walk.tile, enable_fp_fusion=True,
        )  # fmt: skip
    return y


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: int,
    *, need_x: bool, need_parameters: bool,
) -> Gradients:  # fmt: skip
    """The gradients of x (in its layout), weight and bias; an empty tensor for one that nobody needs.

    grad: that of ``forward``'s y, any strides, also zero. Holds two temporaries of grad's size and dtype.
    """
    channels_last, side = layout(x) is torch.channels_last, weight.shape[-1]
    dense = grad.contiguous(memory_format=layout(x))
    walk = _walk(dense, x, channels_last, sums=2)
    grads = (torch.empty_like(walk.owner), torch.empty_like(walk.owner), walk.owner)
    taps = _taps(weight, channels_last)
    of_x, of_weight, of_bias = (operand.new_empty(0) for operand in (x, weight, bias))
    with torch.cuda.device_of(x):
        kernels.factors_kernel[walk.grid](
            walk.read, taps, bias.contiguous(), grads, *walk.geometry,
            side, stride, walk.strip, walk.tile, enable_fp_fusion=True,
        )  # fmt: skip
        if need_parameters:
            sums = _parameter_sums(_walk(dense, x, channels_last, sums=3), grads, side, stride)
            order = (0, 3, 1, 2) if channels_last else (0, 3, 2, 1)
            of_weight = sums[:, :-1].unflatten(1, (side, side)).permute(order).unsqueeze(2)
            of_weight = of_weight.to(weight.dtype).contiguous()
            of_bias = sums[:, -1].to(bias.dtype).contiguous()
        if need_x:
            of_x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout(x))
            back = _walk(of_x, dense, channels_last, sums=1, multiple=stride)
            kernels.input_kernel[back.grid](
                grads, taps, back.owner, *back.geometry,
                side, stride, back.strip, back.tile, enable_fp_fusion=True,
            )  # fmt: skip
    return of_x, of_weight, of_bias
