"""The shapes of all tensors, also where an exporter computes them in the graph from the sizes of maps.

Nothing runs but arithmetic on a handful of integers, with onnx's own reference implementation.
"""

from math import prod
from typing import Any

from quadnas.extras import optional

MAX_VALUES = 64
MAX_ROUNDS = 20
ARITHMETIC = {
    "Add", "Cast", "Concat", "Div", "Floor", "Gather", "Identity", "Mul", "Neg", "Slice", "Squeeze", "Sub",
    "Unsqueeze",
}  # fmt: skip


def with_shapes(model: Any) -> Any:
    """The ONNX model with the shapes that can be known; raises what onnx's shape inference raises."""
    onnx = optional("onnx", "onnx")
    for _ in range(MAX_ROUNDS):
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        if not _fold(onnx, model):
            break
    return model


def _fold(onnx: Any, model: Any) -> bool:
    """Turn what is computed from sizes alone into constants; False if there was nothing of the kind."""
    graph = model.graph
    shapes = {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (*graph.input, *graph.value_info)
        if all(dim.dim_value > 0 for dim in info.type.tensor_type.shape.dim)
    }
    known = {tensor.name: tensor for tensor in graph.initializer if _small(onnx, tensor)}
    found = False
    for node in graph.node:
        value = None
        if node.op_type == "Constant":
            value = next((a.t for a in node.attribute if a.name == "value" and _small(onnx, a.t)), None)
        elif node.op_type == "Shape" and shapes.get(node.input[0]) and not node.attribute:
            sizes = shapes[node.input[0]]
            value = onnx.helper.make_tensor("", onnx.TensorProto.INT64, [len(sizes)], sizes)
        elif node.op_type in ARITHMETIC and all(name in known or not name for name in node.input):
            value = _computed(onnx, model, node, known)
        if value is not None:
            known[node.output[0]] = value
            if node.op_type != "Constant":
                constant = onnx.helper.make_node("Constant", [], node.output[:1], node.name, value=value)
                node.CopyFrom(constant)
                found = True
    return found


def _small(onnx: Any, tensor: Any) -> bool:
    return bool(tensor.data_location != onnx.TensorProto.EXTERNAL and prod(tensor.dims) <= MAX_VALUES)


def _computed(onnx: Any, model: Any, node: Any, known: dict[str, Any]) -> Any:
    evaluator = optional("onnx.reference", "onnx").ReferenceEvaluator
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    try:
        values = {name: onnx.numpy_helper.to_array(known[name]) for name in node.input if name}
        (result,) = evaluator(node, opsets=opsets).run(None, values)
        return onnx.numpy_helper.from_array(result) if result.size <= MAX_VALUES else None
    except Exception:  # whatever it cannot compute stays unknown
        return None
