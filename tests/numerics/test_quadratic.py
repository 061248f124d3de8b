"""The quadratic operator against its definition, finite differences and counted bytes."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quadnas.ops.quadratic import QuadraticDepthwise, quadratic_depthwise, quadratic_depthwise_eager
from tests.numerics.saved import saved_bytes


def operands(
    channels: int, kernel: int, height: int, width: int, batch: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    return normal(batch, channels, height, width), normal(3, channels, 1, kernel, kernel), normal(3, channels)


def by_definition(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """(Wa*x) o (Wb*x) + Wc*x pixel by pixel, without any convolution routine; a stride keeps every so many."""
    _, channels, height, width = x.shape
    kernel = weight.shape[-1]
    half = kernel // 2
    padded = torch.zeros(x.shape[0], channels, height + 2 * half, width + 2 * half, dtype=x.dtype)
    padded[:, :, half : half + height, half : half + width] = x
    branches = bias[:, None, :, None, None].expand(3, x.shape[0], channels, height, width).clone()
    for i in range(kernel):
        for j in range(kernel):
            branches = (
                branches
                + weight[:, None, :, 0, i, j, None, None] * padded[:, :, i : i + height, j : j + width]
            )
    return (branches[0] * branches[1] + branches[2])[:, :, ::stride, ::stride]


@given(
    channels=st.integers(1, 4),
    kernel=st.sampled_from((1, 3, 5, 7, 9)),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    stride=st.integers(1, 3),
)
@settings(deadline=None, max_examples=40)
def test_equals_its_definition_on_any_map(
    channels: int, kernel: int, height: int, width: int, stride: int
) -> None:
    x, weight, bias = operands(channels, kernel, height, width)
    expected = by_definition(x, weight, bias, stride)
    single = quadratic_depthwise(x.float(), weight.float(), bias.float(), stride)
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)
    for function in (quadratic_depthwise, quadratic_depthwise_eager):
        found = function(x, weight, bias, stride)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "height", "width"), [(3, 4, 5), (5, 2, 3), (7, 4, 4), (7, 1, 1)])
def test_gradients_match_finite_differences(kernel: int, height: int, width: int, stride: int) -> None:
    x, weight, bias = operands(2, kernel, height, width, batch=1)
    assert torch.autograd.gradcheck(partial(quadratic_depthwise, stride=stride), (x, weight, bias))


def test_keeps_only_its_input_where_the_eager_form_keeps_three() -> None:
    x, weight, bias = operands(8, 7, 14, 14)
    for tensors in ((x, weight, bias), (x.float(), weight.float(), bias.float())):
        assert saved_bytes(partial(quadratic_depthwise, *tensors), tensors[1:]) == tensors[0].nbytes
    eager = partial(quadratic_depthwise_eager, x, weight, bias)
    assert saved_bytes(eager, (weight, bias)) == 3 * x.nbytes


@pytest.mark.parametrize("frozen", [None, 0, 1, 2])
def test_second_derivatives_match_finite_differences(frozen: int | None) -> None:
    leaves = [t.detach().requires_grad_(i != frozen) for i, t in enumerate(operands(1, 3, 3, 3, batch=1))]
    assert torch.autograd.gradgradcheck(quadratic_depthwise, leaves)


def test_third_derivatives_match_finite_differences() -> None:
    x, weight, bias = operands(1, 3, 2, 2, batch=1)

    def gradient(x: Tensor) -> Tensor:
        y = quadratic_depthwise(x, weight, bias, 2)
        return torch.autograd.grad(y.sin().sum(), x, create_graph=True)[0].sin()

    assert torch.autograd.gradgradcheck(gradient, (x,))


def test_initialisation_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    layer = QuadraticDepthwise(256, 7)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert layer.bias.abs().max() == 0
    x = torch.randn(4, 256, 14, 14)
    branch = torch.nn.functional.conv2d(x, layer.weight[0], padding=3, groups=256)
    # spec: std(Wa*u) = 0.123 on a normalised 256@14 map with padding
    assert branch.std().item() == pytest.approx(0.123, rel=0.05)


def test_one_quadratic_neuron_computes_xor() -> None:
    """y = (-2 x1)(x2) + (x1 + x2), as a 1x3 stencil over (x1, 0, x2)."""
    weight = torch.zeros(3, 1, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 0, 1, 0] = -2
    weight[1, 0, 0, 1, 2] = 1
    weight[2, 0, 0, 1] = 1
    for x1 in (0.0, 1.0):
        for x2 in (0.0, 1.0):
            x = torch.tensor([[[[x1, 0.0, x2]]]], dtype=torch.float64)
            y = quadratic_depthwise(x, weight, torch.zeros(3, 1, dtype=torch.float64))
            assert y[0, 0, 0, 1].item() == float(x1 != x2)
