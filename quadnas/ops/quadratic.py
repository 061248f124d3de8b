"""Quadratic depthwise convolution, y = (Wa*u) o (Wb*u) + Wc*u, keeping only its input for the backward pass.

Source: QuadraNet (arXiv 2311.17956) section III; the recomputing backward follows from the product rule.
``quadratic_torch`` computes it anywhere, ``quadratic_native`` on the CPU, ``quadratic_triton`` on a CUDA device,
each with ``forward`` and ``backward``; ``quadratic_backend`` chooses.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from quadnas.ops import quadratic_native, quadratic_torch
from quadnas.ops.native import switched_off
from quadnas.ops.quadratic_torch import (
    HALF,
    Gradients,
    exact,
    layout,
    output_shape,
    quadratic_depthwise_eager,
)

__all__ = [
    "Backend",
    "QuadraticDepthwise",
    "quadratic_backend",
    "quadratic_depthwise",
    "quadratic_depthwise_eager",
]

LARGEST_IN_TRITON = 13
"""Its kernels unroll every tap, so that a larger side would compile for minutes; torch computes those."""


class Backend(NamedTuple):
    """What computes the operator, ``native``, ``triton`` or ``torch``, and why it is this one."""

    name: str
    reason: str


def quadratic_backend(device: str, dtype: torch.dtype) -> Backend:
    """The back-end for tensors on a type of device ("cpu", "cuda", ...); all compute the same function.

    The first call for the CPU compiles the native one, unless QUADNAS_NATIVE=0 switches it off.
    """
    if dtype not in (torch.float32, *HALF):
        return Backend("torch", f"{dtype} is computed by torch alone")
    if device == "cuda":
        return Backend("triton", "a GPU") if _triton() else Backend("torch", "triton is not installed")
    if device != "cpu":
        return Backend("torch", f"no kernel of our own for {device}")
    if switched_off():
        return Backend("torch", "QUADNAS_NATIVE=0")
    problem = quadratic_native.problem()
    return Backend("torch", problem) if problem else Backend("native", "compiled for this machine")


@cache
def _triton() -> Any:
    try:
        from quadnas.ops import quadratic_triton  # noqa: PLC0415 (needs triton)
    except ImportError:
        return None
    return quadratic_triton


def _implementation(x: Tensor, weight: Tensor) -> Any:
    name = quadratic_backend(x.device.type, x.dtype).name if x.numel() else "torch"
    if name == "triton" and weight.shape[-1] <= LARGEST_IN_TRITON:
        return _triton()
    return quadratic_native if name == "native" else quadratic_torch


def _check(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> None:
    """The shapes that memory is read by; raises ValueError."""
    channels, side = x.shape[1] if x.ndim == 4 else None, weight.shape[-1]
    shapes = (3, channels, 1, side, side), (3, channels)
    if (tuple(weight.shape), tuple(bias.shape)) != shapes or not side % 2 or stride < 1:
        raise ValueError(
            "the quadratic convolution takes x (N, C, H, W), weight (3, C, 1, K, K) with K odd, bias (3, C) and a "
            f"stride from 1 on, not {[*map(tuple, (x.shape, weight.shape, bias.shape))]} and stride {stride}"
        )
    dtypes = (x.dtype, torch.float32) if x.dtype in HALF else (x.dtype,)
    if not weight.dtype == bias.dtype in dtypes or len({t.device for t in (x, weight, bias)}) != 1:
        raise ValueError(
            "the quadratic convolution takes tensors of one dtype on one device, or float32 parameters with x in "
            "half precision, not " + ", ".join(f"{t.dtype} on {t.device}" for t in (x, weight, bias))
        )


@torch.library.custom_op("quadnas::quadratic_depthwise", mutates_args=())
def _forward(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    _check(x, weight, bias, stride)
    return _implementation(x, weight).forward(x, weight, bias, stride)  # type: ignore[no-any-return]


@_forward.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    _check(x, weight, bias, stride)
    return torch.empty(output_shape(x, stride), dtype=x.dtype, device=x.device, memory_format=layout(x))


@torch.library.custom_op("quadnas::quadratic_depthwise_backward", mutates_args=())
def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: int, need_x: bool, need_parameters: bool
) -> Gradients:
    _check(x, weight, bias, stride)
    if grad.shape != output_shape(x, stride) or grad.dtype != x.dtype or grad.device != x.device:
        raise ValueError(
            f"a gradient of {grad.dtype} {tuple(grad.shape)} on {grad.device} does not fit the output"
        )
    implementation, needs = _implementation(x, weight), {"need_x": need_x, "need_parameters": need_parameters}
    return implementation.backward(grad, x, weight, bias, stride, **needs)  # type: ignore[no-any-return]


@_backward.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: int, need_x: bool, need_parameters: bool
) -> Gradients:
    of_x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout(x))
    of_weight, of_bias = (p.new_empty(p.shape if need_parameters else 0) for p in (weight, bias))
    return of_x if need_x else x.new_empty(0), of_weight, of_bias


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
    *tensors, ctx.stride = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needed = ctx.needs_input_grad[:3]
    if torch.is_grad_enabled():
        return *_differentiable_gradients(ctx.saved_tensors, needed, grad, ctx.stride), None
    found = _backward(grad, *ctx.saved_tensors, ctx.stride, needed[0], any(needed[1:]))
    return *(t if need else None for t, need in zip(found, needed, strict=True)), None


def _differentiable_gradients(
    operands: tuple[Tensor, Tensor, Tensor], needed: tuple[bool, ...], grad: Tensor, stride: int
) -> tuple[Tensor | None, ...]:
    """The gradients as a graph of their own, for second derivatives; memory is that of the eager form."""
    wanted = [operand for operand, need in zip(operands, needed, strict=True) if need]
    x, weight, bias = map(exact, operands)
    y = quadratic_depthwise_eager(x, weight, bias, stride).to(grad.dtype)
    found = iter(torch.autograd.grad(y, wanted, grad, create_graph=True))
    return tuple(next(found) if need else None for need in needed)


_forward.register_autograd(_gradients, setup_context=_save)


def quadratic_depthwise(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1) -> Tensor:
    """Apply y = (Wa*x) o (Wb*x) + Wc*x with "same" zero padding.

    x: (N, C, H, W), channels-last or contiguous, kept; weight: (3, C, 1, K, K) with K odd, in the order a, b, c;
    bias: (3, C); both in the dtype of x or, if that is half precision, in float32. Returns y, (N, C,
    ceil(H / stride), ceil(W / stride)), in the dtype of x. Saves x alone; differentiable any number of times.
    Factors and sums are at least float32; a GPU rounds the gradients of the factors to the dtype of x in between.
    Under autocast x is cast to its dtype, on the CPU to float32, where that is faster. Raises ValueError for other
    shapes, or operands that differ in dtype or device.
    """
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):  # torch refuses the question for meta
        x = x.to(torch.float32 if device == "cpu" else torch.get_autocast_dtype(device))
        weight, bias = weight.float(), bias.float()
    return _forward(x, weight, bias, stride)  # type: ignore[no-any-return]


class QuadraticDepthwise(nn.Module):
    """Quadratic depthwise convolution layer: three depthwise kernels of side ``kernel`` (odd), each with bias.

    (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)). Parameters: weight (3, C, 1, K, K), bias (3, C).
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(3, channels, 1, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(3, channels))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
        return quadratic_depthwise(x, self.weight, self.bias, self.stride)
