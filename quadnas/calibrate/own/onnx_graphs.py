"""Graphs as ONNX models with random weights: networks as they are exported, and chains of operators."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from quadnas.blocks.base import block_of
from quadnas.calibrate.own.modules import network_module
from quadnas.calibrate.own.runtime import Graph
from quadnas.errors import ConfigError
from quadnas.export.onnx_graph import OPSET, onnx_bytes
from quadnas.extras import optional
from quadnas.latency.kernels import Kernel, Operator
from quadnas.space.layer import Layer

_IR_VERSION = 10
_ACTIVATIONS = {"gelu": "Gelu", "relu": "Relu", "hswish": "HardSwish", "sigmoid": "Sigmoid"}
_JOINS = {"add": "Add", "mul": "Mul"}
_TO = {"nchw": [0, 3, 1, 2], "nhwc": [0, 2, 3, 1]}


class OnnxModels:
    """Makes ONNX models; raises MachineError if a package of the given ``extra`` is missing.

    A whole network is its layers' exports in sequence: a distinct layer is exported once, since that takes a
    second, and the runtime optimises the sequence as it does an export of the whole.
    """

    def __init__(self, extra: str) -> None:
        self._onnx = optional("onnx", extra)
        optional("onnxscript", extra)
        self._exports: dict[str, Any] = {}

    def of(self, graph: Graph) -> bytes:
        """The ONNX model of a graph; its one input ``images`` is (N, C, H, W), float32."""
        nodes = _Nodes(self._onnx)
        output = self._chained(graph, nodes) if graph.layers else nodes.add_operators(graph.operators)
        helper, number = self._onnx.helper, self._onnx.TensorProto.FLOAT
        images = helper.make_tensor_value_info("images", number, graph.shape)
        result = helper.make_tensor_value_info(output, number, None)
        model = helper.make_model(
            helper.make_graph(nodes.nodes, "graph", [images], [result], nodes.weights),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
        )
        return bytes(model.SerializeToString())

    def _chained(self, graph: Graph, nodes: "_Nodes") -> str:
        flow, (_, _, height, width) = "images", graph.shape
        for position, layer in enumerate(graph.layers):
            block, ports = block_of(layer)
            if block.operators(ports, height, width):
                flow = nodes.add_export(self._export(layer, height, width), f"layer{position}.", flow)
            height, width = block.output_size(ports, height, width)
        return flow

    def _export(self, layer: Layer, height: int, width: int) -> Any:
        key = f"{layer!r} {height} {width}"
        if key not in self._exports:
            data = onnx_bytes(network_module([layer]), (1, layer.channels_in, height, width))
            self._exports[key] = self._onnx.load_from_string(data).graph
        return self._exports[key]


class _Nodes:
    """Nodes and weights so far; a tensor is its name and its layout."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._random = np.random.default_rng(0)
        self._turned: dict[tuple[str, str], str] = {}

    def add_export(self, graph: Any, prefix: str, source: str) -> str:
        """Append an exported layer that reads the tensor ``source``; returns its output."""
        names = {graph.input[0].name: source}
        for weight in graph.initializer:
            copy = type(weight)()
            copy.CopyFrom(weight)
            names[weight.name] = copy.name = prefix + weight.name
            self.weights.append(copy)
        for node in graph.node:
            copy = type(node)()
            copy.CopyFrom(node)
            copy.name = prefix + node.name
            names.update((name, prefix + name) for name in node.output)
            copy.input[:] = [names.get(name, name) for name in node.input]
            copy.output[:] = [names[name] for name in node.output]
            self.nodes.append(copy)
        return names[graph.output[0].name]

    def add_operators(self, operators: Sequence[Operator]) -> str:
        """Append operators with their edges; returns the output of the last.

        Convolutions read (N, C, H, W); LayerNorm reads (N, H, W, C), and what follows it stays in that layout,
        a 1x1 convolution as a matrix product: so do networks that torch exports.
        """
        outputs: list[tuple[str, str]] = []
        for operator in operators:
            inputs = [("images", "nchw") if s < 0 else outputs[s] for s in operator.sources]
            outputs.append(self._operator(operator.kernel, inputs))
        return outputs[-1][0]

    def _operator(self, k: Kernel, inputs: list[tuple[str, str]]) -> tuple[str, str]:
        name, layout = inputs[0]
        if k.op in _ACTIVATIONS:
            return self._node(_ACTIVATIONS[k.op], [name]), layout
        if k.op in _JOINS:
            layout = layout if all(other == layout for _, other in inputs) else "nhwc"
            return self._node(_JOINS[k.op], [self._turn(tensor, layout) for tensor in inputs]), layout
        if k.op == "layernorm":
            reads = [self._turn(inputs[0], "nhwc"), self._weight(k.cin), self._weight(k.cin)]
            return self._node("LayerNormalization", reads, axis=-1, epsilon=1e-6), "nhwc"
        if k.op == "fc" or (k.op == "conv" and k.kernel == k.stride == 1 and layout == "nhwc"):
            product = self._node("MatMul", [self._turn(inputs[0], "nhwc"), self._weight(k.cin, k.cout)])
            return self._node("Add", [product, self._weight(k.cout)]), "nhwc"
        if k.op == "global-pool":
            axes = self._constant(np.array([2, 3] if layout == "nchw" else [1, 2]))
            return self._node("ReduceMean", [name, axes], keepdims=1), layout
        if k.op in ("conv", "dwconv"):
            return self._convolution(k, self._turn(inputs[0], "nchw")), "nchw"
        raise ConfigError(f"no ONNX form is known for the operator {k.op!r}")

    def _convolution(self, k: Kernel, source: str) -> str:
        groups = k.cin if k.op == "dwconv" else 1
        weight = self._weight(k.cout, k.cin // groups, k.kernel, k.kernel)
        return self._node(
            "Conv",
            [source, weight, self._weight(k.cout)],
            group=groups,
            kernel_shape=[k.kernel] * 2,
            strides=[k.stride] * 2,
            pads=[0 if k.kernel == k.stride else k.kernel // 2] * 4,
        )

    def _turn(self, tensor: tuple[str, str], layout: str) -> str:
        name, now = tensor
        if now == layout:
            return name
        if (name, layout) not in self._turned:
            self._turned[name, layout] = self._node("Transpose", [name], perm=_TO[layout])
        return self._turned[name, layout]

    def _node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        output = f"t{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(op, inputs, [output], **attributes))
        return output

    def _weight(self, *shape: int) -> str:
        """Random, since runtimes drop a bias of zero and merge equal weights."""
        return self._constant((self._random.random(shape, np.float32) - 0.5) / max(shape) ** 0.5)

    def _constant(self, values: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(self._onnx.numpy_helper.from_array(values, name))
        return name
