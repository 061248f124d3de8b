"""ONNX operators -> the graph that nn-Meter's kernel detector reads, with the shape of every map.

nn-Meter's own converter drops nodes whose shape it does not know, takes every tensor for NCHW and every constant
for a map. Here every operator either becomes a node with its true shape, or is one that costs nothing on any
runtime (a view, a layout), or stands under its own name and is reported as uncovered.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from quadnas.nnmeter.onnx_graph import Node, OnnxGraph

Map = tuple[int, int, int]
"""Height, width, channels."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor as a map: the IR nodes that give it, and which of its axes holds the channels.

    Axis 0, the batch's, says that channels are split over several axes.
    """

    producers: tuple[str, ...]
    map: Map
    axis: int


@dataclass
class IR:
    """``nodes`` as nn-Meter's detector takes them; ``notes`` say what was left out, and why it costs nothing."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Count one operator that was left out."""
        self.notes[text] = self.notes.get(text, 0) + 1


def to_ir(graph: OnnxGraph) -> IR:
    """The IR of a whole graph; raises nothing: what cannot be understood is a node that nothing prices."""
    return _Translator(graph).ir


class _Translator:
    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph
        self.ir = IR()
        self.values: dict[str, Value] = {}
        self._readers = graph.readers()
        self._slices: dict[str, Value] = {}
        for name in graph.inputs:
            self.values[name] = self._emit("Placeholder", (), self._plain(name), {})
        for node in graph.nodes:
            data = [self.values[name] for name in node.inputs if name in self.values]
            value = _RULES.get(node.op, _Translator._uncovered)(self, node, data)
            for name in node.outputs:
                self.values[name] = value if name == node.outputs[0] else self._like(value, name)

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.graph.shapes.get(name, ())

    def _plain(self, name: str) -> Value:
        """A tensor of which nothing is known but its shape: channels first in a map, last in anything else."""
        return _viewed(
            (), self._shape(name), 1 if len(self._shape(name)) == 4 else len(self._shape(name)) - 1
        )

    def _like(self, value: Value, name: str) -> Value:
        """Another tensor of the same nodes."""
        return _viewed(value.producers, self._shape(name), value.axis)

    def _emit(self, op: str, data: Sequence[Value], out: Value, attributes: dict[str, Any]) -> Value:
        name = f"{op}#{len(self.ir.nodes)}"
        inbounds = list(dict.fromkeys(producer for value in data for producer in value.producers))
        self.ir.nodes[name] = {
            "attr": {
                "type": op,
                "attr": attributes,
                "input_shape": [[1, *value.map] for value in data],
                "output_shape": [[1, *out.map]],
            },
            "inbounds": inbounds,
            "outbounds": [],
        }
        for inbound in inbounds:
            self.ir.nodes[inbound]["outbounds"].append(name)
        return Value((name,), out.map, out.axis)

    def _operator(
        self, op: str, node: Node, data: Sequence[Value], axis: int | None = None, **attributes: Any
    ) -> Value:
        """A node whose output has the shape that ONNX gives it, with the channels where its input has them."""
        if axis is None:
            axis = data[0].axis if data else 1
        return self._emit(op, data, _viewed((), self._shape(node.outputs[0]), axis), attributes)

    def _uncovered(self, node: Node, data: Sequence[Value]) -> Value:
        return self._operator(node.op.lower().replace("_", ""), node, data)

    def _free(self, node: Node, data: Sequence[Value]) -> Value:
        return data[0]

    def _activation(self, node: Node, data: Sequence[Value]) -> Value:
        return self._operator(_ACTIVATIONS[node.op], node, data)

    def _clip(self, node: Node, data: Sequence[Value]) -> Value:
        low = node.attributes.get("min", self._scalar(node, 1))
        return self._operator("relu" if low == 0 else "clip", node, data)

    def _scalar(self, node: Node, position: int) -> float | None:
        name = node.inputs[position] if position < len(node.inputs) else ""
        values = self.graph.constants.get(name)
        return values[0] if values is not None and len(values) == 1 else None

    def _convolution(self, node: Node, data: Sequence[Value]) -> Value:
        weight = self._shape(node.inputs[1])
        if len(weight) != 4 or len(data) != 1 or data[0].axis != 1:
            return self._operator(f"{node.op.lower()}{max(len(weight) - 2, 0)}d", node, data)
        cout, cin, groups = weight[0], data[0].map[2], node.attributes.get("group", 1)
        kernel, strides = list(weight[2:]), node.attributes.get("strides", [1, 1])
        if len(set(kernel)) > 1 or len(set(strides)) > 1:
            op = "rectangularconv"
        elif any(step != 1 for step in node.attributes.get("dilations", ())):
            op = "dilatedconv"
        elif groups == 1:
            op = "conv"
        else:
            op = "dwconv" if groups == cin == cout else "groupedconv"
        return self._windowed(op, node, data, kernel, strides)

    def _windowed(
        self, op: str, node: Node, data: Sequence[Value], kernel: list[int], strides: list[int]
    ) -> Value:
        """A window moved over a map; where "same" padding would give another size, the input is what it reads."""
        value = self._operator(op, node, data, ks=kernel, strides=strides)
        height, width, channels = data[0].map
        read = (
            side if -(-side // stride) == out else out * stride
            for side, out, stride in zip((height, width), value.map, strides, strict=False)
        )
        self.ir.nodes[value.producers[0]]["attr"]["input_shape"] = [[1, *read, channels]]
        return value

    def _product(self, node: Node, data: Sequence[Value]) -> Value:
        """A product with a weight matrix works on the channels of every position; other products are uncovered."""
        shape, value = self._shape(node.outputs[0]), data[0]
        weighted = len(data) == 1 and node.inputs[0] in self.values and len(self._shape(node.inputs[1])) == 2
        if not weighted or value.axis != len(self._shape(node.inputs[0])) - 1:
            return self._operator("matmul", node, data)
        positions = value.map[0] * value.map[1]
        return self._operator(
            "fc" if positions == 1 else "conv", node, data, len(shape) - 1, ks=[1, 1], strides=[1, 1]
        )

    def _arithmetic(self, node: Node, data: Sequence[Value]) -> Value:
        """Two maps are added and so on; one map and a constant, or a vector, are one factor per channel.

        A product of two maps is no ``mul``: nn-Meter takes any add-relu-mul-mul for a hard swish.
        """
        op = {"Mul": "product", "Div": "quotient"}.get(node.op, node.op.lower())
        if len(data) == 1 and len(node.inputs) == 2 and set(node.inputs) & set(self.graph.constants):
            if op == "add" and self._is_bias(node, data[0]):
                self.ir.note("biases, part of the product before them")
                return data[0]
            return self._operator("scale", node, data)
        if len(data) == 2 and data[0].map != data[1].map:
            whole, vector = sorted(data, key=lambda value: value.map, reverse=True)
            if vector.map != (1, 1, whole.map[2]):
                return self._operator(f"broadcast{op}", node, [whole, vector])
            gated = any(producer.startswith("hardsigmoid") for producer in vector.producers)
            return self._operator("mul" if gated else "scale", node, [whole, vector] if gated else [whole])
        return self._operator(op, node, [*data, *data] if len(data) == 1 else data)

    def _is_bias(self, node: Node, value: Value) -> bool:
        """A constant per channel that only follows a weighted product."""
        before = self.ir.nodes[value.producers[0]]["attr"] if len(value.producers) == 1 else {"type": ""}
        source = next(name for name in node.inputs if name in self.values)
        constant = next(name for name in node.inputs if name in self.graph.constants)
        vector = len([side for side in self._shape(constant) if side > 1]) <= 1
        weighted = before["type"] in ("conv", "dwconv", "fc")
        return weighted and vector and len(self._readers[source]) == 1 and "bias" not in before["attr"]

    def _batch_norm(self, node: Node, data: Sequence[Value]) -> Value:
        return self._operator("bn", node, data)

    def _layer_norm(self, node: Node, data: Sequence[Value]) -> Value:
        rank = len(self._shape(node.inputs[0]))
        axes = tuple(range(node.attributes.get("axis", -1) % max(rank, 1), rank))
        axes = node.attributes.get("axes", axes)  # of one that was contracted
        return self._operator("layernorm" if axes == (data[0].axis,) else "othernorm", node, data)

    def _pool(self, node: Node, data: Sequence[Value]) -> Value:
        kernel = list(node.attributes.get("kernel_shape", ()))
        strides = list(node.attributes.get("strides", [1] * len(kernel)))
        height, width, _ = data[0].map
        if node.op == "AveragePool" and kernel == [height, width]:
            return self._operator("gap", node, data)
        square = len(kernel) == 2 and len(set(kernel)) == 1 == len(set(strides)) and data[0].axis == 1
        if not square:
            return self._uncovered(node, data)
        return self._windowed(_POOLS[node.op], node, data, kernel, strides)

    def _global_pool(self, node: Node, data: Sequence[Value]) -> Value:
        return self._operator("gap", node, data)

    def _mean(self, node: Node, data: Sequence[Value]) -> Value:
        rank = len(self._shape(node.inputs[0]))
        spatial = tuple(axis for axis in range(1, rank) if axis != data[0].axis)
        if rank < 3 or self.graph.axes(node) != spatial:
            return self._uncovered(node, data)
        kept = node.attributes.get("keepdims", 1)
        return self._operator("gap", node, data, data[0].axis if kept else 1)

    def _transpose(self, node: Node, data: Sequence[Value]) -> Value:
        """Only the place of the channels changes: runtimes that keep channels last have nothing to do."""
        order = list(node.attributes.get("perm", ()))
        value = data[0]
        moved = [axis for axis in order if axis != value.axis]
        if not order or not value.axis or moved != sorted(moved):
            return self._operator("transpose", node, data)
        self.ir.note(
            "changes of layout around operators that want channels last, nothing to do where data lies so"
        )
        return Value(value.producers, value.map, order.index(value.axis))

    def _reshape(self, node: Node, data: Sequence[Value]) -> Value:
        """Another view of the same map, unless channels are split (as before a shuffle)."""
        shape, value = self._shape(node.outputs[0]), data[0]
        channels = value.map[2]
        axis = 1 if value.axis == 1 else len(shape) - 1
        if len(shape) == 2:
            return Value(value.producers, (1, 1, shape[1]), 1)
        if value.axis and 2 < len(shape) <= 4 and shape[axis] == channels:
            return _viewed(value.producers, shape, axis)
        return self._operator("reshape", node, data, axis=1 if len(shape) == 4 else 0)

    def _concat(self, node: Node, data: Sequence[Value]) -> Value:
        rank = len(self._shape(node.outputs[0]))
        channels = rank and node.attributes.get("axis", 1) % rank == data[0].axis
        return self._operator("concat" if channels else "stack", node, data)

    def _split(self, node: Node, data: Sequence[Value]) -> Value:
        rank = len(self._shape(node.inputs[0]))
        channels = rank and node.attributes.get("axis", 0) % rank == data[0].axis
        return self._operator("split" if channels else "cut", node, data)

    def _slice(self, node: Node, data: Sequence[Value]) -> Value:
        """Slices of one tensor along its channels are one split."""
        source = node.inputs[0]
        before, after = self._shape(source), self._shape(node.outputs[0])
        changed = [axis for axis, (a, b) in enumerate(zip(before, after, strict=False)) if a != b]
        if changed != [data[0].axis]:
            return self._operator("cut", node, data)
        if source not in self._slices:
            self._slices[source] = self._operator("split", node, data)
        return self._like(self._slices[source], node.outputs[0])


def _viewed(producers: tuple[str, ...], shape: Sequence[int], axis: int) -> Value:
    """A tensor of ``shape`` whose axis 0 is the batch; more than two axes of positions count as one."""
    spatial = [side for position, side in enumerate(shape) if position not in (0, axis)]
    height, width = (spatial[0] if spatial else 1), prod(spatial[1:])
    channels = shape[axis] if 0 < axis < len(shape) else 1
    return Value(producers, (height, width, channels), axis)


_ACTIVATIONS = {
    "Relu": "relu", "Gelu": "gelu", "HardSwish": "hswish", "Swish": "swish", "Sigmoid": "sigmoid",
    "HardSigmoid": "hardsigmoid",
}  # fmt: skip
_POOLS = {"MaxPool": "maxpool", "AveragePool": "avgpool"}

_Rule = Callable[[_Translator, Node, Sequence[Value]], Value]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("Identity", "Dropout", "Cast"), _Translator._free),
    **dict.fromkeys(_ACTIVATIONS, _Translator._activation),
    **dict.fromkeys(_POOLS, _Translator._pool),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _Translator._arithmetic),
    **dict.fromkeys(("MatMul", "Gemm"), _Translator._product),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _Translator._reshape),
    "Conv": _Translator._convolution,
    "Clip": _Translator._clip,
    "BatchNormalization": _Translator._batch_norm,
    "LayerNormalization": _Translator._layer_norm,
    "GlobalAveragePool": _Translator._global_pool,
    "ReduceMean": _Translator._mean,
    "Transpose": _Translator._transpose,
    "Concat": _Translator._concat,
    "Split": _Translator._split,
    "Slice": _Translator._slice,
}
