"""What exporters write and nn-Meter 2.0 misreads: each small graph, and the kernels that it truly is."""

from pathlib import Path

import pytest

from quadnas.latency.kernels import Kernel
from quadnas.nnmeter.detector import Detected, detect
from tests.golden.onnx_networks import Graph

pytest.importorskip("onnx")

CPU = (
    ("conv", "bn"), ("conv", "relu"), ("dwconv", "bn"), ("dwconv", "relu"), ("bn", "relu"), ("add", "relu"),
    ("conv", "hswish"),
)  # fmt: skip


def found(g: Graph, result: str, folder: Path, opset: int = 17) -> Detected:
    return detect(g.write(folder / "g.onnx", result, opset), CPU)


def kernels(g: Graph, result: str, folder: Path, opset: int = 17) -> list[Kernel]:
    return list(found(g, result, folder, opset).kernels)


def layer_norm(g: Graph, x: str, channels: int, axis: int, power: str = "Pow", affine: bool = True) -> str:
    """As torch writes it before opset 17, with one subtraction."""
    centred = g.add("Sub", x, g.add("ReduceMean", x, axes=[axis]))
    square = (
        g.add("Pow", centred, g.constant(value=2.0)) if power == "Pow" else g.add("Mul", centred, centred)
    )
    spread = g.add("Add", g.add("ReduceMean", square, axes=[axis]), g.constant(value=1e-6))
    y = g.add("Div", centred, g.add("Sqrt", spread))
    if affine:
        y = g.add("Add", g.add("Mul", y, g.constant(channels)), g.constant(channels))
    return y


@pytest.mark.parametrize("power", ["Pow", "Mul"])
@pytest.mark.parametrize("affine", [True, False])
def test_an_opened_layer_norm_is_one_kernel(power: str, affine: bool, tmp_path: Path) -> None:
    """nn-Meter would charge its two means as global pools and its epsilon as a sum of two maps."""
    g = Graph(1, 8, 6, 4)
    y = g.add("Transpose", "x", perm=[0, 2, 3, 1])
    y = g.add("Transpose", layer_norm(g, y, 8, -1, power, affine), perm=[0, 3, 1, 2])
    answer = found(g, y, tmp_path)
    assert list(answer.kernels) == [Kernel("layernorm", 6, 4, (8,), 8)]
    assert sum(answer.notes.values()) == 2  # the two changes of layout


def test_a_layer_norm_over_the_channels_of_a_map_needs_no_change_of_layout(tmp_path: Path) -> None:
    """As ConvNeXt writes it: mean over axis 1, the difference taken twice, weights (C, 1, 1)."""
    g = Graph(1, 8, 6, 4)
    mean = g.add("ReduceMean", "x", axes=[1])
    square = g.add("Pow", g.add("Sub", "x", mean), g.constant(value=2.0))
    spread = g.add("Sqrt", g.add("Add", g.add("ReduceMean", square, axes=[1]), g.constant(value=1e-6)))
    y = g.add("Div", g.add("Sub", "x", mean), spread)
    y = g.add("Add", g.add("Mul", g.constant(8, 1, 1), y), g.constant(8, 1, 1))
    assert kernels(g, y, tmp_path) == [Kernel("layernorm", 6, 4, (8,), 8)]


def test_a_norm_over_another_axis_is_no_layer_norm(tmp_path: Path) -> None:
    g = Graph(1, 8, 6, 4)
    assert [k.op for k in kernels(g, layer_norm(g, "x", 4, -1), tmp_path)] == ["othernorm"]


@pytest.mark.parametrize(("axis", "op"), [(1, "layernorm"), (3, "othernorm")])
def test_axes_may_be_an_input(axis: int, op: str, tmp_path: Path) -> None:
    """Since opset 18 the axes of a mean are a constant, not an attribute."""
    g = Graph(1, 8, 6, 4)
    axes = g.constant(value=[axis])
    centred = g.add("Sub", "x", g.add("ReduceMean", "x", axes))
    square = g.add("ReduceMean", g.add("Pow", centred, g.constant(value=2.0)), axes)
    y = g.add("Div", centred, g.add("Sqrt", g.add("Add", square, g.constant(value=1e-6))))
    assert [k.op for k in kernels(g, y, tmp_path, opset=18)] == [op]


def test_a_layer_norm_whose_inside_is_read_elsewhere_stays_open(tmp_path: Path) -> None:
    g = Graph(1, 8, 6, 4)
    mean = g.add("ReduceMean", "x", axes=[1])
    centred = g.add("Sub", "x", mean)
    square = g.add("ReduceMean", g.add("Pow", centred, g.constant(value=2.0)), axes=[1])
    y = g.add("Div", centred, g.add("Sqrt", g.add("Add", square, g.constant(value=1e-6))))
    assert "layernorm" not in [k.op for k in kernels(g, g.add("Add", y, mean), tmp_path)]


@pytest.mark.parametrize("order", ["x first", "half first", "half of x"])
def test_an_opened_gelu_is_one_kernel(order: str, tmp_path: Path) -> None:
    """nn-Meter would charge its 1 as a sum of two maps, and nothing for the rest."""
    g = Graph(1, 8, 6, 4)
    half, root = g.constant(value=0.5), g.constant(value=2**0.5)
    gate = g.add("Add", g.add("Erf", g.add("Div", "x", root)), g.constant(value=1.0))
    if order == "x first":
        y = g.add("Mul", g.add("Mul", "x", gate), half)
    elif order == "half first":
        y = g.add("Mul", g.add("Mul", gate, half), "x")
    else:
        y = g.add("Mul", g.add("Mul", "x", half), gate)
    assert kernels(g, y, tmp_path) == [Kernel("gelu", 6, 4, (8,), 8)]


def test_other_activations_are_recognised(tmp_path: Path) -> None:
    g = Graph(1, 8, 6, 4)
    x = g.add("Mul", g.add("Sigmoid", "x"), "x")
    x = g.add("Mul", x, g.add("HardSigmoid", x))
    plus = g.add("Add", x, g.constant(value=3.0))
    clipped = g.add("Clip", plus, g.constant(value=0.0), g.constant(value=6.0))
    x = g.add("Div", g.add("Mul", x, clipped), g.constant(value=6.0))
    x = g.add("Clip", x, g.constant(value=-1.0), g.constant(value=1.0))
    assert [k.op for k in kernels(g, x, tmp_path)] == ["swish", "hswish", "hswish", "clip"]


def test_a_sum_then_two_products_of_maps_is_no_hard_swish(tmp_path: Path) -> None:
    """nn-Meter takes any add, relu, mul, mul for one and would price four kernels as one."""
    g = Graph(1, 8, 6, 4)
    x = g.add("Relu", g.add("Add", "x", g.add("Sigmoid", "x")))
    x = g.add("Mul", g.add("Mul", x, g.add("Sigmoid", "x")), g.add("Sigmoid", "x"))
    assert sorted(k.op for k in kernels(g, x, tmp_path)) == ["add-relu", "mul", "mul"] + ["sigmoid"] * 3


def test_constants_are_no_maps(tmp_path: Path) -> None:
    """A scalar or a vector is one factor per channel: ``scale``, not a sum of two maps; nn-Meter crashes on it."""
    g = Graph(1, 8, 6, 4)
    x = g.add("Add", "x", g.constant(value=1.0))
    x = g.add("Mul", x, g.constant(8, 1, 1))
    x = g.add("Sub", g.constant(value=2.0), x)
    assert kernels(g, x, tmp_path) == [Kernel("scale", 6, 4, (8,), 8)] * 3


def test_sums_and_products_of_maps(tmp_path: Path) -> None:
    g = Graph(1, 8, 6, 4)
    x = g.add("Relu", "x")
    y = g.add("Mul", g.add("Add", x, "x"), g.add("Sigmoid", x))
    y = g.add("Mul", y, y)
    pooled = g.add("Sigmoid", g.add("GlobalAveragePool", y))
    names = [(k.op, k.inputs) for k in kernels(g, g.add("Mul", y, pooled), tmp_path)]
    assert sorted(names) == sorted([
        ("relu", (8,)), ("sigmoid", (8,)), ("add", (8, 8)), ("mul", (8, 8)), ("mul", (8, 8)),
        ("global-pool", (8,)), ("sigmoid", (8,)), ("scale", (8,)),
    ])  # fmt: skip


def test_nodes_without_a_type_for_nn_meter_are_left_out(tmp_path: Path) -> None:
    """Identity, Dropout and what computes from constants or shapes alone; nn-Meter fails with KeyError 'type'."""
    g = Graph(1, 8, 6, 4)
    weight = g.add("Identity", g.constant(16, 8, 1, 1))
    x = g.add("Conv", g.add("Identity", "x"), weight, kernel_shape=[1, 1])
    shape = g.add("Concat", g.constant(value=[1]), g.constant(value=[16 * 24]), axis=0)
    g.add("Shape", x)
    x = g.add("Reshape", g.add("Dropout", x), shape)
    assert kernels(g, x, tmp_path) == [Kernel("conv", 6, 4, (8,), 16)]


def test_one_operator_alone_is_not_lost(tmp_path: Path) -> None:
    """nn-Meter drops nodes without neighbours: a model of one operator would cost 0 ms."""
    g = Graph(1, 8, 6, 4)
    assert kernels(g, g.conv("x", 8, 16, 3, 2), tmp_path) == [Kernel("conv", 6, 4, (8,), 16, 3, 2)]


def test_convolutions_that_no_kernel_describes_stand_under_their_own_names(tmp_path: Path) -> None:
    """nn-Meter takes groups, dilation and oblong kernels for the plain square convolution."""
    g = Graph(1, 8, 12, 10)
    x = g.conv("x", 8, 8, 3, groups=8)
    x = g.conv(x, 8, 8, 3, groups=2)
    x = g.conv(x, 8, 16, 3, groups=8)  # depthwise with a multiplier
    weight = g.constant(16, 16, 3, 3)
    x = g.add("Conv", x, weight, kernel_shape=[3, 3], dilations=[2, 2], pads=[2] * 4)
    x = g.add("Conv", x, g.constant(16, 16, 1, 7), kernel_shape=[1, 7], pads=[0, 3, 0, 3])
    x = g.add("ConvTranspose", x, g.constant(16, 8, 2, 2), strides=[2, 2])
    ops = [k.op for k in kernels(g, x, tmp_path)]
    assert ops == ["dwconv", "groupedconv", "groupedconv", "dilatedconv", "rectangularconv", "convtranspose"]


def test_a_grey_image_is_convolved_densely(tmp_path: Path) -> None:
    """One group of one channel: nn-Meter calls that depthwise, because both are 1."""
    g = Graph(1, 1, 12, 10)
    assert [k.op for k in kernels(g, g.conv("x", 1, 8, 3), tmp_path)] == ["conv"]


def test_a_window_without_padding_reads_only_what_its_outputs_need(tmp_path: Path) -> None:
    """3x3 on 12x10 gives 10x8: prices count outputs by "same" padding, so the map counts as 10x8."""
    g = Graph(1, 8, 12, 10)
    x = g.add("Conv", "x", g.constant(8, 8, 3, 3), kernel_shape=[3, 3])
    x = g.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    assert kernels(g, x, tmp_path) == [
        Kernel("conv", 10, 8, (8,), 8, 3), Kernel("max-pool", 10, 8, (8,), 8, 2, 2)
    ]  # fmt: skip


def test_matrices_are_1x1_convolutions_over_positions_and_fc_on_one(tmp_path: Path) -> None:
    g = Graph(1, 8, 6, 4)
    x = g.add("Transpose", "x", perm=[0, 2, 3, 1])
    x = g.add("Add", g.add("MatMul", x, g.constant(8, 16)), g.constant(16))
    x = g.add("ReduceMean", x, axes=[1, 2], keepdims=0)
    x = g.add("Gemm", x, g.constant(5, 16), g.constant(5), transB=1)
    answer = found(g, x, tmp_path)
    assert list(answer.kernels) == [
        Kernel("conv", 6, 4, (8,), 16), Kernel("global-pool", 6, 4, (16,), 16), Kernel("fc", 1, 1, (16,), 5)
    ]  # fmt: skip
    assert {count for text, count in answer.notes.items() if "bias" in text} == {1}


def test_a_product_of_two_maps_is_no_convolution(tmp_path: Path) -> None:
    """As in attention: 6 tokens of 8 channels against each other."""
    g = Graph(1, 6, 8)
    scores = g.add("MatMul", "x", g.add("Transpose", "x", perm=[0, 2, 1]))
    assert [k.op for k in kernels(g, scores, tmp_path)] == ["matmul"]


def test_squeeze_and_excitation_is_one_kernel_with_its_squeezed_width(tmp_path: Path) -> None:
    g = Graph(1, 16, 6, 4)
    x = g.conv("x", 16, 16, 3)
    gate = g.add("Relu", g.conv(g.add("GlobalAveragePool", x), 16, 4))
    gate = g.add("HardSigmoid", g.conv(gate, 4, 16))
    found = kernels(g, g.add("Mul", gate, x), tmp_path)
    assert found == [Kernel("conv", 6, 4, (16,), 16, 3), Kernel("se", 6, 4, (16,), 4)]


def test_channel_shuffle_split_and_concat(tmp_path: Path) -> None:
    g = Graph(1, 8, 6, 4)
    first = g.add("Split", "x", outputs=2, axis=1, num_outputs=2)
    y = g.add("Concat", g.add("Relu", first), f"{first}1", axis=1)
    y = g.add("Reshape", y, g.constant(value=[1, 2, 4, 6, 4]))
    y = g.add("Transpose", y, perm=[0, 2, 1, 3, 4])
    y = g.add("Reshape", y, g.constant(value=[1, 8, 6, 4]))
    assert kernels(g, g.conv(y, 8, 8), tmp_path, opset=18) == [
        Kernel("split", 6, 4, (8,), 4), Kernel("relu", 6, 4, (4,), 4), Kernel("concat", 6, 4, (4, 4), 8),
        Kernel("channel_shuffle", 6, 4, (8,), 8), Kernel("conv", 6, 4, (8,), 8),
    ]  # fmt: skip


def test_slices_of_one_map_are_one_split(tmp_path: Path) -> None:
    g = Graph(1, 8, 6, 4)

    def part(low: int, high: int, axis: int) -> str:
        return g.add("Slice", "x", *(g.constant(value=[number]) for number in (low, high, axis)))

    y = g.add("Concat", g.add("Relu", part(0, 4, 1)), part(4, 8, 1), axis=1)
    assert sorted(k.op for k in kernels(g, y, tmp_path)) == ["concat", "relu", "split"]
    g = Graph(1, 8, 6, 4)
    assert [k.op for k in kernels(g, part(0, 3, 2), tmp_path)] == ["cut"]


def test_an_operator_that_nobody_knows_is_named(tmp_path: Path) -> None:
    g = Graph(1, 8, 6, 4)
    assert kernels(g, g.add("Softmax", "x", axis=1), tmp_path) == [Kernel("softmax", 6, 4, (8,), 8)]


def test_an_open_batch_is_one_and_an_open_size_is_the_given_one(tmp_path: Path) -> None:
    import onnx

    g = Graph(1, 3, 8, 8)
    model = g.model(g.conv("x", 3, 8, 3, 2))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
        dims[axis].Clear()
        dims[axis].dim_param = name
    path = tmp_path / "open.onnx"
    onnx.save(model, path)
    answer = detect(path, CPU, input_size=20)
    assert answer.kernels == (Kernel("conv", 20, 20, (3,), 8, 3, 2),)
    assert answer.shape == (1, 3, 20, 20)


def test_shapes_that_are_computed_in_the_graph(tmp_path: Path) -> None:
    """As torch's older exporter halves a map: Shape, Gather, Add, Div, Mul give the bounds of two slices."""
    g = Graph(1, 8, 6, 4)
    channels = g.add("Gather", g.add("Shape", "x"), g.constant(value=[1]), axis=0)
    half = g.add("Div", g.add("Add", channels, g.constant(value=[1])), g.constant(value=[2]))
    zero, one, two = (g.constant(value=[number]) for number in (0, 1, 2))
    first = g.add("Slice", "x", zero, g.add("Mul", half, one), one)
    second = g.add("Slice", "x", half, g.add("Mul", half, two), one)
    x = g.conv(g.add("Concat", g.add("Relu", first), second, axis=1), 8, 16)
    target = g.add("Concat", one, g.add("Mul", g.add("Shape", x), one), axis=0)
    flat = g.add("Slice", target, g.constant(value=[1]), g.constant(value=[3]), zero)
    x = g.add("Reshape", x, g.add("Concat", flat, g.constant(value=[-1]), axis=0))
    assert kernels(g, x, tmp_path) == [
        Kernel("split", 6, 4, (8,), 4), Kernel("relu", 6, 4, (4,), 4), Kernel("concat", 6, 4, (4, 4), 8),
        Kernel("conv", 6, 4, (8,), 16),
    ]  # fmt: skip
