"""An ONNX file as plain data: operators and shapes. Weights are never read, and the network never runs.

That includes weights in files of their own (``external data``): their shapes stand in the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from quadnas.errors import ConfigError, DataError
from quadnas.extras import optional
from quadnas.nnmeter.onnx_shapes import MAX_VALUES, with_shapes

MAX_BYTES = 2**31 - 1
"""Protobuf's own limit."""
MAX_NODES = 5000
"""Far above any network that runs on a phone; matching patterns takes the square of it."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One ONNX operator; ``inputs`` and ``outputs`` are names of tensors, "" for one left away."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """Nodes that work on data, in the order in which they run.

    ``inputs`` are the tensors fed from outside; ``shapes`` those of all tensors, as far as they are known;
    ``constants`` the tensors that do not depend on the input, with their values if they are few.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    shapes: Mapping[str, Shape]
    constants: Mapping[str, tuple[float, ...] | None]

    def readers(self) -> dict[str, list[Node]]:
        """The nodes that read every tensor."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return found

    def axes(self, node: Node) -> tuple[int, ...] | None:
        """The axes over which a node works, counted from the front; None if that cannot be said."""
        rank = len(self.shapes.get(node.inputs[0], ()))
        axes = node.attributes.get("axes")
        if axes is None and len(node.inputs) > 1:
            axes = self.constants.get(node.inputs[1])
        return None if not rank or axes is None else tuple(sorted(int(axis) % rank for axis in axes))


def read_onnx(path: Path, input_size: int | None = None) -> OnnxGraph:
    """Read the graph of an ONNX file.

    A batch that was left open becomes 1, an open height and width become ``input_size``. Raises ConfigError for a
    missing file or shapes that stay open, DataError for anything that is not a whole ONNX model, MachineError if
    the package ``onnx`` is missing.
    """
    model = _load(path)
    _close_shapes(path, model, input_size)
    try:
        inferred = with_shapes(model)
    except Exception as error:  # onnx raises what its C++ throws
        raise DataError(f"{path}: the shapes of its tensors contradict each other: {_line(error)}") from None
    graph = _as_data(inferred.graph)
    _check_order(path, graph)
    graph = _without_constants(graph)
    _check_shapes(path, graph)
    return graph


def _load(path: Path) -> Any:
    onnx = optional("onnx", "onnx")
    decode_error = optional("google.protobuf.message", "onnx").DecodeError
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than the 2 GiB that an ONNX file may have")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    try:
        model = onnx.load_model_from_string(data)
    except (decode_error, ValueError) as error:
        raise DataError(f"{path} is not an ONNX file, or damaged: {_line(error)}") from None
    if not model.graph.node or not model.opset_import:
        raise DataError(f"{path} is not an ONNX file: it has no operators")
    if len(model.graph.node) > MAX_NODES:
        raise DataError(f"{path} has {len(model.graph.node)} operators; at most {MAX_NODES} are taken")
    if model.functions:
        raise DataError(
            f"{path} hides operators in functions; export it flat, or inline them with onnx.inliner"
        )
    return model


def _close_shapes(path: Path, model: Any, input_size: int | None) -> None:
    """Fix what the exporter left open, and forget shapes that were written for another size."""
    weights = {tensor.name for tensor in model.graph.initializer}
    for tensor in model.graph.input:
        if tensor.name in weights:
            continue
        if not tensor.type.tensor_type.HasField("shape"):
            raise ConfigError(f"{path}: the input {tensor.name!r} has no shape; export it with a fixed one")
        dims = tensor.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            spatial = len(dims) == 4 and axis >= 2
            if dim.dim_value > 0:
                if spatial and input_size not in (None, dim.dim_value):
                    raise ConfigError(
                        f"{path} was exported for {dim.dim_value} pixels; --input-size {input_size} needs "
                        "an export of that size, or with open height and width"
                    )
                continue
            if axis and not (spatial and input_size):
                raise ConfigError(
                    f"{path}: axis {axis} of the input {tensor.name!r} is open ({dim.dim_param or 'no size'}); "
                    "export it with fixed shapes, or give the side of its images with --input-size"
                )
            dim.Clear()
            dim.dim_value = input_size if axis and input_size else 1
            del model.graph.value_info[:]
            for output in model.graph.output:
                output.type.tensor_type.ClearField("shape")


def _as_data(graph: Any) -> OnnxGraph:
    onnx = optional("onnx", "onnx")
    constants: dict[str, tuple[float, ...] | None] = {}
    shapes: dict[str, Shape] = {}
    for tensor in graph.initializer:
        shapes[tensor.name], constants[tensor.name] = tuple(tensor.dims), _values(tensor)
    for info in (*graph.input, *graph.value_info, *graph.output):
        if info.name not in shapes and info.type.tensor_type.HasField("shape"):
            dims = info.type.tensor_type.shape.dim
            if all(dim.HasField("dim_value") for dim in dims):
                shapes[info.name] = tuple(dim.dim_value for dim in dims)
    nodes = []
    for node in graph.node:
        attributes = {}
        for item in node.attribute:
            if item.type in (onnx.AttributeProto.FLOAT, onnx.AttributeProto.INT, onnx.AttributeProto.STRING,
                             onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):  # fmt: skip
                attributes[item.name] = onnx.helper.get_attribute_value(item)
            elif item.type == onnx.AttributeProto.TENSOR and node.op_type == "Constant":
                constants[node.output[0]], shapes[node.output[0]] = _values(item.t), tuple(item.t.dims)
        if node.op_type == "Constant":
            scalar = next((v for k, v in attributes.items() if k in ("value_float", "value_int")), None)
            constants.setdefault(node.output[0], None if scalar is None else (float(scalar),))
            continue
        nodes.append(Node(node.op_type, tuple(node.input), tuple(node.output), attributes))
    inputs = tuple(info.name for info in graph.input if info.name not in constants)
    return OnnxGraph(tuple(nodes), inputs, shapes, constants)


def _values(tensor: Any) -> tuple[float, ...] | None:
    """The values of a small constant that stands in the model itself."""
    onnx = optional("onnx", "onnx")
    if tensor.data_location == onnx.TensorProto.EXTERNAL or prod(tensor.dims) > MAX_VALUES:
        return None
    try:
        return tuple(float(value) for value in onnx.numpy_helper.to_array(tensor).reshape(-1))
    except (ValueError, TypeError):
        return None


def _check_order(path: Path, graph: OnnxGraph) -> None:
    known = {"", *graph.inputs, *graph.constants}
    for node in graph.nodes:
        for name in node.inputs:
            if name not in known:
                raise DataError(f"{path} is damaged: {node.op} reads {name!r}, which nothing before it gives")
        if repeated := {name for name in node.outputs if name and name in known}:
            raise DataError(f"{path} is damaged: the tensor {min(repeated)!r} is given twice")
        known.update(node.outputs)


def _check_shapes(path: Path, graph: OnnxGraph) -> None:
    if not graph.inputs or not graph.nodes:
        raise DataError(f"{path} computes nothing from an input: there is nothing to run")
    read = graph.readers()
    for node in graph.nodes:
        for name in node.outputs:
            if name not in graph.shapes and (name == node.outputs[0] or name in read):
                raise ConfigError(
                    f"{path}: the shape of {name!r} behind {node.op} is not known before the model runs; export "
                    "it with fixed shapes, for example with torch.onnx.export(..., dynamo=True)"
                )


def _without_constants(graph: OnnxGraph) -> OnnxGraph:
    """Drop the nodes that compute from constants and shapes alone: no runtime runs them again and again."""
    constants = dict(graph.constants)
    nodes = []
    for node in graph.nodes:
        fixed = all(name in constants or not name for name in node.inputs) and node.inputs
        if fixed or node.op in ("Shape", "Size"):
            constants.update(dict.fromkeys(node.outputs))
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
