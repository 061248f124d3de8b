"""The quadratic operator as torch sees it, on both CPU back-ends: layouts, autograd, autocast, compile, export."""

from typing import Any

import pytest
import torch
from torch import Tensor

from quadnas.ops import quadratic
from quadnas.ops.quadratic import QuadraticDepthwise, quadratic_depthwise, quadratic_depthwise_eager

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(params=["native", "torch"], autouse=True)
def back_end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("QUADNAS_NATIVE", str(int(request.param == "native")))
    if quadratic.quadratic_backend("cpu", torch.float32).name != request.param:
        pytest.skip("no native back-end here")
    return str(request.param)


def operands(*shape: int, kernel: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and bias as leaves."""
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        scale = shape[-1] if len(shape) == 5 else 1  # keeps the outputs of order 1
        return (torch.randn(shape, generator=generator) / scale).requires_grad_()

    channels = shape[1]
    return leaf(*shape), leaf(3, channels, 1, kernel, kernel), leaf(3, channels)


def gradients(y: Tensor, *leaves: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(y.sin().sum(), leaves))


def channels_last(x: Tensor) -> Tensor:
    return x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_match_the_eager_form_in_the_layout_of_the_input(
    layout: torch.memory_format, stride: int
) -> None:
    x, weight, bias = operands(2, 20, 15, 14, kernel=7)
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    a, b, c = (t.detach().double().requires_grad_() for t in (x, weight, bias))
    exact = gradients(quadratic_depthwise_eager(a, b, c, stride), a, b, c)
    y = quadratic_depthwise(x, weight, bias, stride)
    found = gradients(y, x, weight, bias)
    for ours, true in zip(found, exact, strict=True):
        assert ((ours - true).norm() / true.norm()).item() < 2e-6
    assert y.is_contiguous(memory_format=layout)
    assert found[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 1), (1, 2)])
def test_gives_only_the_gradients_that_are_needed(needed: tuple[int, ...]) -> None:
    all_leaves = operands(2, 5, 6, 7)
    full = gradients(quadratic_depthwise(*all_leaves), *all_leaves)
    leaves = tuple(t.detach().requires_grad_(i in needed) for i, t in enumerate(all_leaves))
    x, weight, bias = leaves
    quadratic_depthwise(x, weight, bias).sin().sum().backward()
    for i, leaf in enumerate(leaves):
        assert (leaf.grad is None) == (i not in needed)
        assert leaf.grad is None or torch.equal(leaf.grad, full[i])


def test_takes_gradients_and_inputs_that_are_views() -> None:
    x, weight, bias = operands(2, 6, 8, 9)
    wide = channels_last(torch.cat([x, x], 1))
    (whole,) = torch.autograd.grad(quadratic_depthwise(x, weight, bias).sum(), x)  # the gradient is expanded
    expected = torch.autograd.grad(quadratic_depthwise(x, weight, bias), x, torch.ones(2, 6, 8, 9))[0]
    torch.testing.assert_close(whole, expected)
    view, thinned = wide[:, :6], x.detach()[:, :, ::2, 1:]
    torch.testing.assert_close(quadratic_depthwise(view, weight, bias), quadratic_depthwise(x, weight, bias))
    torch.testing.assert_close(
        quadratic_depthwise(thinned, weight, bias), quadratic_depthwise(thinned.clone(), weight, bias)
    )


def test_takes_an_empty_batch() -> None:
    x, weight, bias = operands(0, 4, 6, 5)
    y = quadratic_depthwise(x, weight, bias, 2)
    assert y.shape == (0, 4, 3, 3)
    for gradient, leaf in zip(gradients(y, x, weight, bias), (x, weight, bias), strict=True):
        assert torch.equal(gradient, torch.zeros_like(leaf))


@pytest.mark.parametrize(
    ("shape", "layout", "dtype", "needs"),
    [
        ((2, 5, 6, 7), torch.channels_last, torch.float32, (True, True)),
        ((2, 5, 6, 7), torch.contiguous_format, torch.bfloat16, (False, True)),
        ((2, 1, 3, 4), torch.channels_last, torch.bfloat16, (True, False)),
        ((3, 4, 1, 1), torch.contiguous_format, torch.float32, (True, True)),
    ],
)
def test_is_registered_as_torch_wants_it(
    shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype, needs: tuple[bool, bool]
) -> None:
    x, weight, bias = operands(*shape)
    x = x.detach().to(dtype).contiguous(memory_format=layout).requires_grad_()
    torch.library.opcheck(quadratic._forward, (x, weight, bias, 2))
    x, weight, bias = x.detach(), weight.detach(), bias.detach()
    grad = torch.ones_like(quadratic_depthwise(x, weight, bias, 2))
    torch.library.opcheck(quadratic._backward, (grad, x, weight, bias, 2, *needs))


def test_compiles_without_a_break() -> None:
    layer = QuadraticDepthwise(6, 3, stride=2)
    torch.nn.init.normal_(layer.weight)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for size in (6, 9):
        x = channels_last(operands(2, 6, size, 5)[0])
        leaves = x, layer.weight, layer.bias
        for ours, expected in zip(gradients(compiled(x), *leaves), gradients(layer(x), *leaves), strict=True):
            assert torch.equal(ours, expected)


def test_exports_with_sizes_left_open() -> None:
    layer = QuadraticDepthwise(6, 9)
    torch.nn.init.normal_(layer.weight)
    open_sizes = {axis: torch.export.Dim(name) for axis, name in ((0, "batch"), (2, "height"), (3, "width"))}
    example = channels_last(operands(2, 6, 8, 9)[0]).detach()
    exported = torch.export.export(layer, (example,), dynamic_shapes=(open_sizes,)).module()
    for shape in ((1, 6, 8, 9), (3, 6, 3, 2), (5, 6, 12, 4)):
        x = channels_last(operands(*shape)[0]).detach()
        assert torch.equal(exported(x), layer(x))


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_computes_in_float32_under_autocast_on_the_cpu(given: torch.dtype) -> None:
    x, weight, bias = operands(2, 6, 8, 8)
    x = x.detach().to(given).requires_grad_()
    expected = quadratic_depthwise(x.float(), weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        y = quadratic_depthwise(x, weight, bias)
        assert torch.equal(torch.ops.quadnas.quadratic_depthwise(x.float(), weight, bias, 1), expected)
    assert torch.equal(y, expected)
    assert [t.dtype for t in gradients(y, x, weight, bias)] == [given, torch.float32, torch.float32]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="takes a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computes_in_the_dtype_of_autocast_on_a_gpu(dtype: torch.dtype) -> None:
    x, weight, bias = (t.detach().cuda().requires_grad_() for t in operands(2, 6, 8, 8))
    with torch.autocast("cuda", dtype):
        y = quadratic_depthwise(x, weight, bias)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), quadratic_depthwise(x, weight, bias), rtol=0.05, atol=0.05)
    assert {t.dtype for t in gradients(y.float(), x, weight, bias)} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_parameters_of_half_precision_pixels_keep_their_precision(dtype: torch.dtype) -> None:
    x, weight, bias = operands(2, 6, 8, 8)
    half = x.detach().to(dtype).requires_grad_()
    a, b, c = (t.detach().double().requires_grad_() for t in (half, weight, bias))
    y, exact_y = quadratic_depthwise(half, weight, bias), quadratic_depthwise_eager(a, b, c)
    torch.testing.assert_close(y, exact_y.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)
    found = torch.autograd.grad(y.sum(), (half, weight, bias))
    exact = torch.autograd.grad(exact_y.sum(), (a, b, c))
    for ours, true, tolerance in zip(found, exact, (torch.finfo(dtype).eps, 1e-6, 1e-6), strict=True):
        assert ((ours - true).norm() / true.norm()).item() < tolerance


def test_second_derivatives_in_half_precision() -> None:
    x, weight, bias = operands(2, 6, 8, 8)
    half, a = x.detach().half(), x.detach().half().double()
    b, c = weight.detach().double().requires_grad_(), bias.detach().double().requires_grad_()
    seconds = []
    for y, w, last in (
        (quadratic_depthwise(half, weight, bias), weight, bias),
        (quadratic_depthwise_eager(a, b, c), b, c),
    ):
        (first,) = torch.autograd.grad(y.sum(), w, create_graph=True)
        seconds.append(torch.autograd.grad(first.sum(), last)[0].double())
    torch.testing.assert_close(seconds[0], seconds[1], rtol=1e-3, atol=1e-3)


def changed(**change: Any) -> dict[str, Any]:
    x, weight, bias = (t.detach() for t in operands(2, 4, 5, 5))
    return {"x": x, "weight": weight, "bias": bias, "stride": 1} | change


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (changed(x=torch.zeros(2, 5, 5, 5)), r"takes x \(N, C, H, W\).*not \[\(2, 5, 5, 5\)"),
        (changed(x=torch.zeros(4, 5, 5)), r"takes x \(N, C, H, W\)"),
        (changed(weight=torch.zeros(3, 4, 1, 4, 4)), "K odd"),
        (changed(weight=torch.zeros(3, 4, 1, 3, 5)), "weight"),
        (changed(bias=torch.zeros(2, 4)), "bias"),
        (changed(stride=0), "stride 0"),
        (changed(bias=torch.zeros(3, 4, dtype=torch.float64)), "one dtype.*torch.float64 on cpu"),
        (changed(weight=torch.zeros(3, 4, 1, 3, 3, device="meta")), "one device.*on meta"),
    ],
)
def test_refuses_operands_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quadratic_depthwise(**arguments)


def test_refuses_a_gradient_that_does_not_fit() -> None:
    x, weight, bias = (t.detach() for t in operands(2, 4, 5, 5))
    with pytest.raises(ValueError, match=r"a gradient of torch.float32 \(2, 4, 3, 5\) on cpu does not fit"):
        torch.ops.quadnas.quadratic_depthwise_backward(
            torch.zeros(2, 4, 3, 5), x, weight, bias, 1, True, True
        )


def test_gives_shapes_without_data() -> None:
    layer = QuadraticDepthwise(6, 5, stride=2).to("meta")
    x = torch.empty(2, 6, 9, 8, device="meta", requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.shape == (2, 6, 5, 4)
    assert x.grad is not None
    assert x.grad.shape == x.shape
