"""Linear layers over the last dimension, plain and quadratic: the 1x1 convolutions of channels-last blocks."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.ops.factors import QuadraticForm


class Linear(nn.Linear):
    """(..., channels_in) -> (..., channels_out) with bias, initialised by the truncated normal of 0.02."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out)
        nn.init.trunc_normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def deployed(self, scale: Tensor) -> nn.Linear:
        """``scale`` (channels_out,) times this layer."""
        return _linear(self.weight * scale[:, None], self.bias * scale)


class _QuadraticLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        factor_a, factor_b, linear = (F.linear(x, w, b) for w, b in zip(weight, bias, strict=True))
        return linear.addcmul_(factor_a, factor_b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight, bias = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        grads_out = (grad * F.linear(x, weight[1], bias[1]), grad * F.linear(x, weight[0], bias[0]), grad)
        rows, *flat = (t.reshape(-1, t.shape[-1]) for t in (x, *grads_out))
        return (
            sum((g @ w for g, w in zip(grads_out[1:], weight[1:], strict=True)), grads_out[0] @ weight[0])
            if need_x
            else None,
            torch.stack([g.T @ rows for g in flat]) if need_weight else None,
            torch.stack([g.sum(0) for g in flat]) if need_bias else None,
        )


def quadratic_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply y = (A x) o (B x) + C x over the last dimension, keeping only x for the backward pass.

    x: (..., I); weight: (3, O, I) and bias: (3, O) in the order A, B, C. Returns (..., O). Differentiable twice.
    Source: QuadraNet (arXiv 2311.17956), table V.
    """
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):  # torch refuses the question for meta
        x, weight, bias = (t.to(torch.get_autocast_dtype(device)) for t in (x, weight, bias))
    return _QuadraticLinear.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


class QuadraticLinear(nn.Module):
    """(A x) o (B x) + C x, each with bias: (..., channels_in) -> (..., channels_out).

    Parameters: weight (3, channels_out, channels_in), bias (3, channels_out).
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.out_features = channels_out
        self.weight = nn.Parameter(torch.empty(3, channels_out, channels_in))
        self.bias = nn.Parameter(torch.zeros(3, channels_out))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels_in) -> (..., channels_out)."""
        return quadratic_linear(x, self.weight, self.bias)

    def deployed(self, scale: Tensor) -> QuadraticForm:
        """``scale`` (channels_out,) times this layer: three plain layers, A and C scaled."""
        branches = zip(self.weight, self.bias, (scale, torch.ones_like(scale), scale), strict=True)
        return QuadraticForm(*(_linear(weight * by[:, None], bias * by) for weight, bias, by in branches))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """The layer with the weights (O, I) and (O,)."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return linear
