"""The Triton kernels of the quadratic depthwise convolution, launched by ``quadratic_triton``, which says why so.

Maps are (N, C, lines, positions). A program's tile (pixels, tile) holds ``pixels`` strips of neighbour positions
in ``tile`` channels, each owned by one thread. ``sizes``: strips in all, lines and positions of the map that is
read, lines and positions of the map the strips lie on. ``strides``: of images, channels and lines; ``step``: of
positions. Weight: (3, side, side, channels), bias: (3, channels). Sums are in fp32.
"""

from typing import Any

import triton
import triton.language as tl
from triton.language import constexpr, tensor


def _tuned(kernel: Any) -> Any:
    """The kernel at the fastest tile: one or two channels per thread, few or many lines; the bits are the same.

    The interpreter has nothing to time.
    """
    shapes = ((256, 4),) if triton.knobs.runtime.interpret else ((256, 4), (128, 4), (512, 8))
    configs = [triton.Config({"lanes": lanes}, num_warps=warps) for lanes, warps in shapes]
    return triton.autotune(configs, key=["y_step", "channels", "side", "stride", "strip", "tile"])(kernel)


@triton.jit
def _place(
    first: tensor, block: tensor, sizes: tl.tuple,
    channels: constexpr, strip: constexpr, pixels: constexpr, tile: constexpr,
) -> tl.tuple:  # fmt: skip
    """Image, channel, line and first position of each strip in the tile (pixels, tile), and which exist."""
    items, _, _, lines, length = sizes
    item = first + tl.arange(0, pixels)[:, None]
    channel = block * tile + tl.arange(0, tile)[None, :]
    strips = (length + strip - 1) // strip
    start = item // lines % strips * strip
    return item // (lines * strips), channel, item % lines, start, (item < items) & (channel < channels)


@triton.jit
def _offset(image: tensor, channel: tensor, line: tensor, strides: tl.tuple) -> tensor:
    """Elements from the tensor's start; 64 bits, since a batch may hold over 2^31."""
    return (
        image.to(tl.int64) * strides[0] + channel.to(tl.int64) * strides[1] + line.to(tl.int64) * strides[2]
    )


@triton.jit
def _load_row(
    pointer: tensor, start: tensor, length: tensor, keep: tensor,
    before: constexpr, step: constexpr, count: constexpr,
) -> tl.tuple:  # fmt: skip
    """The ``count`` neighbours from ``start`` >= -``before`` on, zero where the row has none."""
    pointer += start * step
    values: tl.tuple = ()
    for i in tl.static_range(count):
        inside = keep & (start + i < length)
        if i < before:
            inside = inside & (start + i >= 0)
        values = values + (tl.load(pointer + i * step, mask=inside, other=0.0).to(tl.float32),)
    return values


@triton.jit
def _load_taps(pointer: tensor, keep: tensor, channels: constexpr, side: constexpr) -> tl.tuple:
    taps: tl.tuple = ()
    for k in tl.static_range(side):
        taps = taps + (tl.load(pointer + k * channels, mask=keep, other=0.0).to(tl.float32),)
    return taps


@triton.jit
def _repeat(value: tensor, count: constexpr) -> tl.tuple:
    values: tl.tuple = ()
    for _ in tl.static_range(count):
        values = values + (value,)
    return values


@triton.jit
def _branches(
    x_ptr: tensor, weight_ptr: tensor, bias_ptr: tensor, place: tl.tuple, sizes: tl.tuple, x_strides: tl.tuple,
    x_step: constexpr, channels: constexpr, side: constexpr, stride: constexpr,
    count: constexpr, strip: constexpr, pixels: constexpr, tile: constexpr,
) -> tl.tuple:  # fmt: skip
    """The first ``count`` of Wa*x + ba, Wb*x + bb, Wc*x + bc on each strip, branch by branch."""
    image, channel, line, start, live = place
    known = channel < channels
    sums: tl.tuple = ()
    for b in tl.static_range(count):
        bias = tl.load(bias_ptr + b * channels + channel, mask=known, other=0.0).to(tl.float32)
        sums = sums + _repeat(tl.zeros((pixels, tile), tl.float32) + bias, strip)
    line, start = line * stride - side // 2, start * stride - side // 2
    x_ptr += _offset(image, channel, line, x_strides)
    weight_ptr += channel
    for k in range(side):
        inside = live & (line + k >= 0) & (line + k < sizes[1])
        row = _load_row(x_ptr, start, sizes[2], inside, side // 2, x_step, (strip - 1) * stride + side)
        new: tl.tuple = ()
        for b in tl.static_range(count):
            taps = _load_taps(weight_ptr + b * side * side * channels, known, channels, side)
            for s in tl.static_range(strip):
                total = sums[b * strip + s]
                for i in tl.static_range(side):
                    total += row[s * stride + i] * taps[i]
                new = new + (total,)
        sums = new
        x_ptr += x_strides[2]
        weight_ptr += side * channels
    return sums


@_tuned
@triton.jit(do_not_specialize=["sizes"])
def forward_kernel(
    x_ptr: tensor, weight_ptr: tensor, bias_ptr: tensor, y_ptr: tensor,
    sizes: tl.tuple, x_strides: tl.tuple, y_strides: tl.tuple, x_step: constexpr, y_step: constexpr,
    channels: constexpr, side: constexpr, stride: constexpr, strip: constexpr, tile: constexpr, lanes: constexpr,
) -> None:  # fmt: skip
    """(Wa*x + ba) o (Wb*x + bb) + (Wc*x + bc)."""
    pixels: constexpr = lanes // tile
    place = _place(tl.program_id(0) * pixels, tl.program_id(1), sizes, channels, strip, pixels, tile)
    sums = _branches(
        x_ptr, weight_ptr, bias_ptr, place, sizes, x_strides,
        x_step, channels, side, stride, 3, strip, pixels, tile,
    )  # fmt: skip
    image, channel, line, start, live = place
    y_ptr += _offset(image, channel, line, y_strides) + start * y_step
    for s in tl.static_range(strip):
        y = (sums[s] * sums[strip + s] + sums[2 * strip + s]).to(y_ptr.dtype.element_ty)
        tl.store(y_ptr + s * y_step, y, mask=live & (start + s < sizes[4]))


@_tuned
@triton.jit(do_not_specialize=["sizes"])
def factors_kernel(
    x_ptr: tensor, weight_ptr: tensor, bias_ptr: tensor, grad_ptrs: tl.tuple,
    sizes: tl.tuple, x_strides: tl.tuple, y_strides: tl.tuple, x_step: constexpr, y_step: constexpr,
    channels: constexpr, side: constexpr, stride: constexpr, strip: constexpr, tile: constexpr, lanes: constexpr,
) -> None:  # fmt: skip
    """The gradients of both factors, g o b and g o a, from the last of ``grad_ptrs`` to the first two."""
    pixels: constexpr = lanes // tile
    place = _place(tl.program_id(0) * pixels, tl.program_id(1), sizes, channels, strip, pixels, tile)
    sums = _branches(
        x_ptr, weight_ptr, bias_ptr, place, sizes, x_strides,
        x_step, channels, side, stride, 2, strip, pixels, tile,
    )  # fmt: skip
    image, channel, line, start, live = place
    offset = _offset(image, channel, line, y_strides)
    grads = _load_row(grad_ptrs[2] + offset, start, sizes[4], live, 0, y_step, strip)
    offset += start * y_step
    for b in tl.static_range(2):
        for s in tl.static_range(strip):
            value = (grads[s] * sums[(1 - b) * strip + s]).to(grad_ptrs[b].dtype.element_ty)
            tl.store(grad_ptrs[b] + offset + s * y_step, value, mask=live & (start + s < sizes[4]))


@triton.jit
def _add_strips(
    sums: tl.tuple, totals: tl.tuple, x_ptr: tensor, grad_ptrs: tl.tuple, place: tl.tuple, first_row: tensor,
    sizes: tl.tuple, x_strides: tl.tuple, y_strides: tl.tuple, x_step: constexpr, y_step: constexpr,
    side: constexpr, stride: constexpr, rows: constexpr, strip: constexpr,
) -> tl.tuple:  # fmt: skip
    """The sums of the taps (row, branch, column) and of the biases plus these strips' shares."""
    image, channel, line, start, live = place
    offset = _offset(image, channel, line, y_strides)
    grads: tl.tuple = ()
    new_totals: tl.tuple = ()
    for b in tl.static_range(3):
        grads = grads + _load_row(grad_ptrs[b] + offset, start, sizes[4], live, 0, y_step, strip)
        total = totals[b]
        for s in tl.static_range(strip):
            total += grads[b * strip + s]
        new_totals = new_totals + (total,)
    line, start = line * stride - side // 2 + first_row, start * stride - side // 2
    x_ptr += _offset(image, channel, line, x_strides)
    new_sums: tl.tuple = ()
    for r in tl.static_range(rows):
        inside = live & (line + r >= 0) & (line + r < sizes[1]) & (first_row + r < side)
        row = _load_row(x_ptr, start, sizes[2], inside, side // 2, x_step, (strip - 1) * stride + side)
        for i in tl.static_range(3 * side):
            total = sums[r * 3 * side + i]
            for s in tl.static_range(strip):
                total += row[s * stride + i % side] * grads[i // side * strip + s]
            new_sums = new_sums + (total,)
        x_ptr += x_strides[2]
    return new_sums, new_totals


@triton.jit(do_not_specialize=["sizes", "share"])
def taps_kernel(
    x_ptr: tensor, grad_ptrs: tl.tuple, out_ptr: tensor, share: tensor,
    sizes: tl.tuple, x_strides: tl.tuple, y_strides: tl.tuple, x_step: constexpr, y_step: constexpr,
    channels: constexpr, side: constexpr, stride: constexpr, strip: constexpr, tile: constexpr, lanes: constexpr,
    rows: constexpr,
) -> None:  # fmt: skip
    """The gradients of ``rows`` rows of taps and of the biases over one share of the strips.

    out: (shares, 3, side * side + 1, channels), a branch's bias behind its taps.
    """
    pixels: constexpr = lanes // tile
    zero = tl.zeros((pixels, tile), tl.float32)
    sums, totals = _repeat(zero, rows * 3 * side), _repeat(zero, 3)
    first_row = tl.program_id(0) * rows + tl.zeros((1, 1), tl.int32)  # a mask of the interpreter is a block
    begin = tl.program_id(1) * share
    for first in range(begin, tl.minimum(begin + share, sizes[0]), pixels):
        place = _place(first, tl.program_id(2), sizes, channels, strip, pixels, tile)
        sums, totals = _add_strips(
            sums, totals, x_ptr, grad_ptrs, place, first_row,
            sizes, x_strides, y_strides, x_step, y_step, side, stride, rows, strip,
        )  # fmt: skip
    channel = tl.program_id(2) * tile + tl.arange(0, tile)[None, :]
    known = channel < channels
    out_ptr += tl.program_id(1).to(tl.int64) * (3 * (side * side + 1) * channels) + channel
    for b in tl.static_range(3):
        branch_ptr = out_ptr + b * (side * side + 1) * channels
        for r in tl.static_range(rows):
            for i in tl.static_range(side):
                tap_ptr = branch_ptr + ((first_row + r) * side + i) * channels
                value = tl.sum(sums[(r * 3 + b) * side + i], axis=0)[None, :]
                tl.store(tap_ptr, value, mask=known & (first_row + r < side))
        bias = tl.sum(totals[b], axis=0)[None, :]
        tl.store(branch_ptr + side * side * channels, bias, mask=known & (first_row == 0))


@_tuned
@triton.jit(do_not_specialize=["sizes"])
def input_kernel(
    grad_ptrs: tl.tuple, weight_ptr: tensor, out_ptr: tensor,
    sizes: tl.tuple, y_strides: tl.tuple, out_strides: tl.tuple, y_step: constexpr, out_step: constexpr,
    channels: constexpr, side: constexpr, stride: constexpr, strip: constexpr, tile: constexpr, lanes: constexpr,
) -> None:  # fmt: skip
    """The input's gradient, gathered from the gradients of the three branches."""
    pixels: constexpr = lanes // tile
    image, channel, line, start, live = _place(
        tl.program_id(0) * pixels, tl.program_id(1), sizes, channels, strip, pixels, tile
    )
    known = channel < channels
    low: constexpr = -(side // 2 // stride)
    count: constexpr = (strip - 1 + side // 2) // stride - low + 1
    sums = _repeat(tl.zeros((pixels, tile), tl.float32), strip)
    for k in range(side):
        distance = line + side // 2 - k
        inside = live & (distance >= 0) & (distance % stride == 0) & (distance // stride < sizes[1])
        offset = _offset(image, channel, distance // stride, y_strides)
        for b in tl.static_range(3):
            row = _load_row(
                grad_ptrs[b] + offset, start // stride + low, sizes[2], inside, -low, y_step, count
            )
            taps = _load_taps(weight_ptr + (b * side + k) * side * channels + channel, known, channels, side)
            new: tl.tuple = ()
            for s in tl.static_range(strip):
                total = sums[s]
                for i in tl.static_range(side):
                    if (s + side // 2 - i) % stride == 0:
                        total += row[(s + side // 2 - i) // stride - low] * taps[i]
                new = new + (total,)
            sums = new
    out_ptr += _offset(image, channel, line, out_strides) + start * out_step
    for s in tl.static_range(strip):
        value = sums[s].to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + s * out_step, value, mask=live & (start + s < sizes[4]))
