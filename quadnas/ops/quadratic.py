"""Quadratic depthwise convolution, y = (Wa*u) o (Wb*u) + Wc*u, keeping only its input for the backward pass.

Source: QuadraNet (arXiv 2311.17956) section III; the recomputing backward follows from the product rule.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _live_taps(weight: Tensor, height: int, width: int) -> slice:
    """The central taps that can meet a pixel: on a map of side n, taps further out than n - 1 read padding."""
    kernel = weight.shape[-1]
    dead = max(0, kernel // 2 - (max(height, width) - 1))
    return slice(dead, kernel - dead)


def _branch(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=x.shape[1])


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def _differentiable_backward(
    needed: tuple[bool, bool, bool], operands: tuple[Tensor, Tensor, Tensor], grad: Tensor
) -> Gradients:
    """The gradients as a graph of their own, for second derivatives; memory is that of the eager form."""
    wanted = [operand for operand, need in zip(operands, needed, strict=True) if need]
    found = iter(torch.autograd.grad(quadratic_depthwise_eager(*operands), wanted, grad, create_graph=True))
    a, b, c = (next(found) if need else None for need in needed)
    return a, b, c


class _QuadraticDepthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        factor_a, factor_b, linear = (_branch(x, w, b) for w, b in zip(weight, bias, strict=True))
        return linear.addcmul_(factor_a, factor_b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable_backward(ctx.needs_input_grad, (x, weight, bias), grad)
        need_x, need_weight, need_bias = ctx.needs_input_grad
        grads_out = (
            grad * _branch(x, weight[1], bias[1]),
            grad * _branch(x, weight[0], bias[0]),
            grad,
        )
        half, channels = weight.shape[-1] // 2, x.shape[1]
        parts = [
            torch.ops.aten.convolution_backward(
                g, x, w, [channels], [1, 1], [half, half], [1, 1], False, [0, 0], channels,
                [need_x, need_weight, need_bias],
            )
            for g, w in zip(grads_out, weight, strict=True)
        ]  # fmt: skip
        return (
            parts[0][0] + parts[1][0] + parts[2][0] if need_x else None,
            torch.stack([part[1] for part in parts]) if need_weight else None,
            torch.stack([part[2] for part in parts]) if need_bias else None,
        )


def quadratic_depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply y = (Wa*x) o (Wb*x) + Wc*x with stride 1 and "same" zero padding.

    x: (N, C, H, W), any memory format, kept; weight: (3, C, 1, K, K) with K odd, in the order a, b, c;
    bias: (3, C). Returns (N, C, H, W). Saves x alone; differentiable twice.
    """
    taps = _live_taps(weight, x.shape[-2], x.shape[-1])
    return _QuadraticDepthwise.apply(x, weight[..., taps, taps], bias)  # type: ignore[no-any-return, no-untyped-call]


def quadratic_depthwise_eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same function as three plain convolutions under autograd, which keeps x and both factors."""
    factor_a, factor_b, linear = (_branch(x, w, b) for w, b in zip(weight, bias, strict=True))
    return factor_a * factor_b + linear


class QuadraticDepthwise(nn.Module):
    """Quadratic depthwise convolution layer: three depthwise kernels of side ``kernel`` (odd), each with bias.

    (N, C, H, W) -> (N, C, H, W). Parameters: weight (3, C, 1, K, K), bias (3, C).
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, channels, 1, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(3, channels))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return quadratic_depthwise(x, self.weight, self.bias)
