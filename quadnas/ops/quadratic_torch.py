"""The quadratic depthwise convolution by torch's own convolutions: any device and dtype, and the reference."""

import torch
from torch import Tensor
from torch.nn import functional as F

HALF = (torch.bfloat16, torch.float16)
Gradients = tuple[Tensor, Tensor, Tensor]


def quadratic_depthwise_eager(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1) -> Tensor:
    """``quadratic_depthwise`` as three convolutions under autograd, which keeps x and both factors."""
    factor_a, factor_b, linear = (_branch(x, w, b, stride) for w, b in zip(weight, bias, strict=True))
    return factor_a * factor_b + linear


def layout(x: Tensor) -> torch.memory_format:
    """The memory format of the output and of the gradient of x: channels-last if x has its channels last."""
    return torch.channels_last if x.stride(1) == 1 else torch.contiguous_format


def exact(tensor: Tensor) -> Tensor:
    """Half precision as float32: factors and sums are rounded once, at the end."""
    return tensor.float() if tensor.dtype in HALF else tensor


def output_shape(x: Tensor, stride: int) -> tuple[int, int, int, int]:
    """(N, C, ceil(H / stride), ceil(W / stride))."""
    n, c, h, w = x.shape
    return n, c, -(-h // stride), -(-w // stride)


def forward(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """y in the layout of x."""
    given, dead = x.dtype, _dead_taps(x, weight)
    x, weight, bias = map(exact, (x, weight, bias))
    with torch.autocast(x.device.type, enabled=False):
        weight = F.pad(weight, (-dead,) * 4)
        factor_a, factor_b, linear = (_branch(x, w, b, stride) for w, b in zip(weight, bias, strict=True))
    y = linear.addcmul_(factor_a, factor_b)
    return y.to(given).contiguous(memory_format=layout(x))


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: int, *, need_x: bool, need_parameters: bool
) -> Gradients:
    """The gradients of x (in its layout), weight and bias; an empty tensor for one that nobody needs."""
    found = [operand.new_empty(0) for operand in (x, weight, bias)]
    dead, channels = _dead_taps(x, weight), x.shape[1]
    grad, x, weight, bias = map(exact, (grad, x, weight, bias))
    with torch.autocast(x.device.type, enabled=False):
        weight = F.pad(weight, (-dead,) * 4)
        half = weight.shape[-1] // 2
        factors = [_branch(x, w, b, stride) for w, b in zip(weight[:2], bias[:2], strict=True)]
        parts = [
            torch.ops.aten.convolution_backward(
                g, x, w, [channels], [stride, stride], [half, half], [1, 1], False, [0, 0], channels,
                [need_x, need_parameters, need_parameters],
            )
            for g, w in zip((grad * factors[1], grad * factors[0], grad), weight, strict=True)
        ]  # fmt: skip
    of_x, of_weight, of_bias = zip(*parts, strict=True)
    if need_x:
        found[0] = (of_x[0] + of_x[1] + of_x[2]).to(found[0].dtype).contiguous(memory_format=layout(x))
    if need_parameters:
        found[1] = F.pad(torch.stack(of_weight), (dead,) * 4).to(found[1].dtype)
        found[2] = torch.stack(of_bias).to(found[2].dtype)
    return found[0], found[1], found[2]


def _branch(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    return F.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2, groups=x.shape[1])


def _dead_taps(x: Tensor, weight: Tensor) -> int:
    """Taps on each side that meet nothing but padding: on a map of side n, those further out than n - 1."""
    return max(0, weight.shape[-1] // 2 - (max(x.shape[-2:]) - 1))
