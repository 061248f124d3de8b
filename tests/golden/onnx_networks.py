"""MobileNetV2 written node by node with the package onnx: no torch, no exporter, none of our blocks."""

from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.golden.networks import MOBILENET_V2


class Graph:
    """Collects nodes; every method returns the name of its result."""

    def __init__(self, *shape: int) -> None:
        import onnx

        self._onnx = onnx
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)]

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """A node; further results are named after the first with 1, 2 ... behind it."""
        name = f"t{len(self.nodes)}"
        results = [name, *(f"{name}{number}" for number in range(1, outputs))]
        self.nodes.append(self._onnx.helper.make_node(op, inputs, results, name, **attributes))
        return name

    def constant(self, *shape: int, value: float | list[int] = 0.5) -> str:
        """An initializer: of a shape, full of one number, or the integers given."""
        kind = self._onnx.TensorProto
        name = f"w{len(self.weights)}"
        if isinstance(value, list):
            self.weights.append(self._onnx.helper.make_tensor(name, kind.INT64, [len(value)], value))
        else:
            count = 1
            for side in shape:
                count *= side
            raw = self._onnx.helper.make_tensor(name, kind.FLOAT, shape, b"\0" * 4 * count, raw=True)
            if count == 1:
                raw = self._onnx.helper.make_tensor(name, kind.FLOAT, shape, [value])
            self.weights.append(raw)
        return name

    def conv(self, x: str, cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> str:
        """With "same" padding and no bias."""
        half = kernel // 2
        weight = self.constant(cout, cin // groups, kernel, kernel)
        return self.add("Conv", x, weight, kernel_shape=[kernel] * 2, strides=[stride] * 2,
                        pads=[half] * 4, group=groups)  # fmt: skip

    def model(self, result: str, opset: int = 17) -> Any:
        """The whole model; the shapes of everything but the input are left to be inferred."""
        helper = self._onnx.helper
        output = helper.make_tensor_value_info(result, self._onnx.TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "g", self.inputs, [output], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])

    def write(self, path: Path, result: str, opset: int = 17) -> Path:
        """``model`` as a file."""
        path.write_bytes(self.model(result, opset).SerializeToString())
        return path


def write_mobilenet_v2(path: Path, size: int = 224) -> Path:
    """MobileNetV2 at width 1.0 with its batch normalisations unfolded."""
    g = Graph(1, 3, size, size)

    def conv_bn(x: str, cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> str:
        statistics = [g.constant(cout) for _ in range(4)]
        return g.add("BatchNormalization", g.conv(x, cin, cout, kernel, stride, groups), *statistics)

    def relu6(x: str) -> str:
        return g.add("Clip", x, g.constant(value=0.0), g.constant(value=6.0))

    x = relu6(conv_bn("x", 3, 32, 3, 2))
    rows = [(t, c, s if not i else 1) for t, c, n, s in MOBILENET_V2 for i in range(n)]
    for (_, cin, _), (expansion, cout, stride) in pairwise([(0, 32, 0), *rows]):
        source, wide = x, expansion * cin
        if expansion > 1:
            x = relu6(conv_bn(x, cin, wide))
        x = relu6(conv_bn(x, wide, wide, 3, stride, wide))
        x = conv_bn(x, wide, cout)
        if stride == 1 and cin == cout:
            x = g.add("Add", source, x)
    x = relu6(conv_bn(x, 320, 1280))
    x = g.add("Flatten", g.add("GlobalAveragePool", x))
    return g.write(path, g.add("Gemm", x, g.constant(1000, 1280), g.constant(1000), transB=1))
