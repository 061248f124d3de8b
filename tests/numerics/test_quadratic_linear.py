"""The quadratic linear layer against its definition, finite differences and counted bytes."""

import pytest
import torch
from torch import Tensor

from quadnas.ops.pointwise import QuadraticLinear, quadratic_linear
from tests.numerics.saved import saved_bytes


def operands(*batch: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    return normal(*batch, 4), normal(3, 5, 4), normal(3, 5)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (2, 3, 2)])
def test_equals_its_definition_and_finite_differences(batch: tuple[int, ...]) -> None:
    x, weight, bias = operands(*batch)
    a, b, c = (torch.einsum("...i,oi->...o", x, w) + v for w, v in zip(weight, bias, strict=True))
    torch.testing.assert_close(quadratic_linear(x, weight, bias), a * b + c, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(quadratic_linear, (x, weight, bias))


def test_keeps_only_its_input() -> None:
    x, weight, bias = operands(6, 7)
    assert saved_bytes(lambda: quadratic_linear(x, weight, bias), (weight, bias)) == x.nbytes


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_computes_no_gradient_that_nobody_needs(frozen: int) -> None:
    leaves = [t.detach().requires_grad_(i != frozen) for i, t in enumerate(operands(3))]
    quadratic_linear(*leaves).sum().backward()
    assert [leaf.grad is None for leaf in leaves] == [i == frozen for i in range(3)]


@pytest.mark.parametrize("frozen", [None, 0, 1, 2])
def test_second_derivatives_match_finite_differences(frozen: int | None) -> None:
    leaves = [t.detach().requires_grad_(i != frozen) for i, t in enumerate(operands(2))]
    assert torch.autograd.gradgradcheck(quadratic_linear, leaves)


def test_runs_under_autocast_as_a_linear_layer_does() -> None:
    torch.manual_seed(0)
    layer = QuadraticLinear(16, 8)
    x = torch.randn(32, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    low = [x.grad, layer.weight.grad, layer.bias.grad]
    x.grad = None
    layer.zero_grad()
    layer(x).square().sum().backward()
    for found, expected in zip(low, (x.grad, layer.weight.grad, layer.bias.grad), strict=True):
        assert found is not None and expected is not None
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.02 * expected.norm()
