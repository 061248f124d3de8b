"""The quadratic convolution's Triton kernels, in Triton's interpreter or else on a GPU.

test_quadratic_triton runs this file, in a process of its own: TRITON_INTERPRET acts when triton is first imported.
"""

import math
import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from quadnas.ops import quadratic, quadratic_triton

CHANNELS_LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
MARGIN = 4096


def definition(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """(Wa*x + ba) o (Wb*x + bb) + (Wc*x + bc), tap by tap."""
    side, (height, width) = weight.shape[-1], x.shape[2:]
    padded = F.pad(x, (side // 2,) * 4)
    branches: list[Tensor] = []
    for taps, shift in zip(weight, bias, strict=True):
        total = shift[:, None, None].expand(x.shape).clone()
        for i in range(side):
            for j in range(side):
                total = total + taps[:, :, i, j, None] * padded[:, :, i : i + height, j : j + width]
        branches.append(total[:, :, ::stride, ::stride])
    return branches[0] * branches[1] + branches[2]


def expected(grad: Tensor, *operands: Tensor, stride: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """y and the gradients of x, weight and bias in double precision."""
    x, weight, bias = (operand.double().detach().requires_grad_() for operand in operands)
    y = definition(x, weight, bias, stride)
    return y.detach(), torch.autograd.grad(y, (x, weight, bias), grad.double())


def operands(
    shape: tuple[int, int, int, int],
    side: int,
    stride: int,
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = CHANNELS_LAST,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """grad, x, weight and bias; the factors are of size 1."""
    generator = torch.Generator().manual_seed(math.prod(shape) + side)
    n, c, h, w = shape
    y_shape = n, c, -(-h // stride), -(-w // stride)
    shapes = y_shape, shape, (3, c, 1, side, side), (3, c)
    grad, x, weight, bias = (torch.randn(s, generator=generator).to(DEVICE, dtype) for s in shapes)
    return grad.to(memory_format=layout), x.to(memory_format=layout), weight / side, bias


def backward(grad: Tensor, *operands: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """All gradients."""
    x, weight, bias = operands
    return quadratic_triton.backward(grad, x, weight, bias, stride, need_x=True, need_parameters=True)


def assert_close(found: Tensor, wanted: Tensor, terms: int, roundings: int) -> None:
    """``roundings`` to found's dtype and sums of ``terms`` in fp32, relative to the largest element.

    A rounding is off by a whole epsilon: to bfloat16 the interpreter cuts off.
    """
    assert found.shape == wanted.shape
    relative = roundings * torch.finfo(found.dtype).eps + terms * torch.finfo(torch.float32).eps
    scale = max(1.0, wanted.abs().max().item())
    assert (found.double() - wanted).abs().max().item() <= relative * scale


def check(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> None:
    """Forward and backward against the definition."""
    y = quadratic_triton.forward(x, weight, bias, stride)
    gradients = backward(grad, x, weight, bias, stride=stride)
    wanted_y, wanted = expected(grad, x, weight, bias, stride=stride)
    taps = weight.shape[-1] ** 2
    assert y.dtype == x.dtype
    assert_close(y, wanted_y, 3 * taps, roundings=1)
    # g o a and g o b are rounded once more; their errors add up along 3 K^2 taps or N H W pixels at most
    pixels = grad.numel() // grad.shape[1]
    for gradient, target, operand, terms in zip(
        gradients, wanted, (x, weight, bias), (3 * taps, pixels, pixels), strict=True
    ):
        assert gradient.dtype == operand.dtype
        assert_close(gradient, target, terms, roundings=1 + math.isqrt(terms))


@pytest.mark.parametrize(
    ("shape", "side", "stride", "dtype", "layout"),
    [
        ((2, 5, 9, 6), 3, 1, torch.float32, CHANNELS_LAST),
        ((1, 35, 4, 5), 3, 2, torch.float32, CHANNELS_LAST),
        ((1, 3, 7, 7), 7, 1, torch.float32, CHANNELS_LAST),
        ((1, 3, 8, 8), 7, 2, torch.bfloat16, CHANNELS_LAST),
        ((1, 2, 5, 4), 13, 1, torch.float16, CHANNELS_LAST),
        ((4, 64, 6, 3), 1, 1, torch.float16, CHANNELS_LAST),
        ((1, 1, 1, 1), 3, 2, torch.float32, CHANNELS_LAST),
        ((2, 2, 9, 10), 3, 1, torch.float32, CONTIGUOUS),
        ((1, 2, 11, 5), 5, 2, torch.bfloat16, CONTIGUOUS),
        ((1, 1, 7, 7), 7, 1, torch.float16, CONTIGUOUS),
        ((1, 2, 2, 3), 3, 3, torch.float32, CONTIGUOUS),
    ],
)
def test_forward_and_backward_are_the_definition(
    shape: tuple[int, int, int, int], side: int, stride: int, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    check(*operands(shape, side, stride, dtype, layout), stride)


@settings(max_examples=8, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 17), st.integers(1, 17)),
    side=st.sampled_from((1, 3)),
    stride=st.integers(1, 2),
    layout=st.sampled_from((CHANNELS_LAST, CONTIGUOUS)),
)
def test_any_shape(
    shape: tuple[int, int, int, int], side: int, stride: int, layout: torch.memory_format
) -> None:
    check(*operands(shape, side, stride, layout=layout), stride)


@pytest.mark.parametrize("layout", [CHANNELS_LAST, CONTIGUOUS])
def test_the_output_and_the_gradient_of_x_keep_the_layout(layout: torch.memory_format) -> None:
    grad, x, weight, bias = operands((2, 2, 4, 6), 3, 2, layout=layout)
    y = quadratic_triton.forward(x, weight, bias, 2)
    of_x, _, _ = backward(grad, x, weight, bias, stride=2)
    assert y.is_contiguous(memory_format=layout)
    assert of_x.stride() == x.stride()


def test_only_the_gradients_that_are_needed() -> None:
    grad, x, weight, bias = operands((1, 2, 3, 3), 3, 1)
    every = backward(grad, x, weight, bias, stride=1)
    only_x = quadratic_triton.backward(grad, x, weight, bias, 1, need_x=True, need_parameters=False)
    others = quadratic_triton.backward(grad, x, weight, bias, 1, need_x=False, need_parameters=True)
    assert torch.equal(only_x[0], every[0])
    assert [t.numel() for t in only_x[1:]] == [0, 0]
    assert others[0].numel() == 0
    assert all(torch.equal(a, b) for a, b in zip(others[1:], every[1:], strict=True))


@pytest.mark.parametrize(("layout", "dtype"), [(CHANNELS_LAST, torch.float32), (CONTIGUOUS, torch.bfloat16)])
def test_the_registered_operator_keeps_its_contract(
    layout: torch.memory_format, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quadratic, "_implementation", lambda *_: quadratic_triton)
    _, x, weight, bias = operands((2, 2, 3, 5), 1, 2, dtype, layout)
    leaves = [t.requires_grad_() for t in (x, weight.float().detach(), bias.float().detach())]
    torch.library.opcheck(torch.ops.quadnas.quadratic_depthwise, (*leaves, 2))


@pytest.mark.parametrize("layout", [CHANNELS_LAST, CONTIGUOUS])
def test_gradients_of_another_layout_and_expanded_ones(layout: torch.memory_format) -> None:
    grad, x, weight, bias = operands((2, 2, 5, 3), 3, 1, layout=layout)
    other = CONTIGUOUS if layout is CHANNELS_LAST else CHANNELS_LAST
    check(grad.contiguous(memory_format=other), x, weight, bias, 1)
    check(torch.tensor(0.5, device=DEVICE).expand(grad.shape), x, weight, bias, 1)


@pytest.mark.parametrize("layout", [CHANNELS_LAST, CONTIGUOUS])
def test_shares_of_the_strips_add_up(layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = operands((3, 2, 24, 17), 1, 1, layout=layout)
    whole = backward(*arguments, stride=1)
    monkeypatch.setattr(quadratic_triton, "MIN_TAP_STEPS", 1)
    check(*arguments, 1)
    parts, again = (backward(*arguments, stride=1) for _ in range(2))
    assert not torch.equal(parts[1], whole[1])  # another order of the same sum
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))


def inside(tensor: Tensor) -> Tensor:
    """The same values between NaN: beyond the map's edges and those of the channels and the batch."""
    n, c, h, w = tensor.shape
    layout = CHANNELS_LAST if tensor.stride(1) == 1 else CONTIGUOUS
    shape = n + 2, c + 2, h + 6, w + 6
    around = torch.full(shape, math.nan, dtype=tensor.dtype, device=DEVICE).to(memory_format=layout)
    around[1:-1, 1:-1, 3:-3, 3:-3] = tensor
    return around[1:-1, 1:-1, 3:-3, 3:-3]


class Fenced:
    """Dense tensors between margins of NaN in memory, for those that are made during a call too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.margins: list[Tensor] = []
        empty, empty_like, taps = torch.empty, torch.empty_like, quadratic_triton._taps
        monkeypatch.setattr(torch, "empty", lambda *a, **k: self.fence(empty(*a, **k)))
        monkeypatch.setattr(torch, "empty_like", lambda *a, **k: self.fence(empty_like(*a, **k)))
        monkeypatch.setattr(quadratic_triton, "_taps", lambda *a: self.fence(taps(*a)))

    def fence(self, tensor: Tensor) -> Tensor:
        """A copy with its strides."""
        length = 2 * MARGIN + tensor.numel()
        memory = torch.full((length,), math.nan, dtype=tensor.dtype, device=DEVICE)
        self.margins += [memory[:MARGIN], memory[-MARGIN:]]
        return memory.as_strided(tensor.shape, tensor.stride(), MARGIN).copy_(tensor)

    def untouched(self) -> bool:
        """Whether nothing was written beside the tensors."""
        return all(bool(margin.isnan().all()) for margin in self.margins)


@pytest.fixture
def fenced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fenced]:
    with monkeypatch.context() as patch:
        yield Fenced(patch)


@pytest.mark.parametrize(
    ("shape", "side", "stride", "layout"),
    [
        ((2, 3, 5, 6), 3, 1, CHANNELS_LAST),
        ((1, 2, 6, 9), 3, 2, CHANNELS_LAST),
        ((1, 2, 9, 4), 3, 1, CONTIGUOUS),
        ((2, 1, 7, 5), 3, 2, CONTIGUOUS),
    ],
)
def test_nothing_is_read_or_written_beside_the_tensors(
    shape: tuple[int, int, int, int], side: int, stride: int, layout: torch.memory_format, fenced: Fenced
) -> None:
    grad, x, weight, bias = operands(shape, side, stride, layout=layout)
    around = inside(x)
    y = quadratic_triton.forward(around, weight, fenced.fence(bias), stride)
    found = backward(fenced.fence(grad), around, weight, fenced.fence(bias), stride=stride)
    wanted_y, wanted = expected(grad, x, weight, bias, stride=stride)
    for tensor, target in zip((y, *found), (wanted_y, *wanted), strict=True):
        torch.testing.assert_close(tensor.double(), target, rtol=1e-5, atol=1e-5)
    assert len(fenced.margins) == 2 * 10
    assert fenced.untouched()
