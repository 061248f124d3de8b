"""The quadratic operator against its definition, finite differences and counted bytes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quadnas.ops.quadratic import QuadraticDepthwise, quadratic_depthwise, quadratic_depthwise_eager


def operands(
    channels: int, kernel: int, height: int, width: int, batch: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    return normal(batch, channels, height, width), normal(3, channels, 1, kernel, kernel), normal(3, channels)


def by_definition(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(Wa*x) o (Wb*x) + Wc*x pixel by pixel, without any convolution routine."""
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
    return branches[0] * branches[1] + branches[2]


@given(
    channels=st.integers(1, 4),
    kernel=st.sampled_from((1, 3, 5, 7, 9)),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
)
@settings(deadline=None, max_examples=40)
def test_equals_its_definition_on_any_map(channels: int, kernel: int, height: int, width: int) -> None:
    x, weight, bias = operands(channels, kernel, height, width)
    expected = by_definition(x, weight, bias)
    torch.testing.assert_close(quadratic_depthwise(x, weight, bias), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(quadratic_depthwise_eager(x, weight, bias), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kernel", "height", "width"), [(3, 4, 5), (5, 2, 3), (7, 4, 4), (7, 1, 1)])
def test_gradients_match_finite_differences(kernel: int, height: int, width: int) -> None:
    x, weight, bias = operands(2, kernel, height, width, batch=1)
    assert torch.autograd.gradcheck(quadratic_depthwise, (x, weight, bias))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_match_the_eager_form_in_single_precision(layout: torch.memory_format) -> None:
    x, weight, bias = (t.detach().float() for t in operands(16, 7, 14, 14))
    weight = 0.02 * weight
    gradients = []
    for function in (quadratic_depthwise, quadratic_depthwise_eager):
        leaves = x.contiguous(memory_format=layout).clone(), weight.clone(), bias.clone()
        for leaf in leaves:
            leaf.requires_grad_()
        output = function(*leaves)
        assert output.is_contiguous(memory_format=layout)
        output.sin().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for ours, eager in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-4)


def saved_bytes(function: object, x: Tensor, weight: Tensor, bias: Tensor) -> int:
    """Bytes of distinct storages, parameters excluded, that autograd keeps for the backward pass."""
    parameters = {t.untyped_storage().data_ptr() for t in (weight, bias)}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = function(x, weight, bias)  # type: ignore[operator]
    assert output.requires_grad
    return sum(storages.values())


def test_keeps_only_its_input_where_the_eager_form_keeps_three() -> None:
    x, weight, bias = operands(8, 7, 14, 14)
    assert saved_bytes(quadratic_depthwise, x, weight, bias) == x.nbytes
    assert saved_bytes(quadratic_depthwise_eager, x, weight, bias) == 3 * x.nbytes


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_computes_no_gradient_that_nobody_needs(frozen: int) -> None:
    leaves = operands(2, 3, 5, 5)
    leaves[frozen].requires_grad_(False)
    quadratic_depthwise(*leaves).sum().backward()
    assert [leaf.grad is None for leaf in leaves] == [i == frozen for i in range(3)]


@pytest.mark.parametrize("frozen", [None, 0, 1, 2])
def test_second_derivatives_match_finite_differences(frozen: int | None) -> None:
    leaves = [t.detach().requires_grad_(i != frozen) for i, t in enumerate(operands(1, 3, 3, 3, batch=1))]
    assert torch.autograd.gradgradcheck(quadratic_depthwise, leaves)


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
