"""Any ONNX model -> the kernels of a device, found by nn-Meter's own kernel detector.

nn-Meter 2.0 (MIT) is the reference for which operators fuse. It is handed a graph in which its known failures
are repaired (``onnx_graph``, ``onnx_patterns``, ``onnx_ir``), and the device's pair rules as its rule file.
"""

import importlib.util
import json
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from quadnas.errors import MachineError
from quadnas.latency.kernels import Kernel
from quadnas.latency.names import words
from quadnas.nnmeter.onnx_graph import OnnxGraph, read_onnx
from quadnas.nnmeter.onnx_ir import IR, to_ir
from quadnas.nnmeter.onnx_patterns import contracted

# nn-Meter's detector and QuadraNAS name a few operators differently.
_NAMES = {
    "gap": "global-pool",
    "maxpool": "max-pool",
    "avgpool": "avg-pool",
    "channelshuffle": "channel_shuffle",
    "hardsigmoid": "hsigmoid",
    "product": "mul",
    "quotient": "div",
    "mul": "scale",
}
_FREE = ("reshape", "Placeholder")


@dataclass(frozen=True, slots=True)
class Detected:
    """The kernels of a model for one device, per image, and what was left out of them, with its count.

    ``shape`` is that of the model's first input, (N, C, H, W) for images.
    """

    kernels: tuple[Kernel, ...]
    shape: tuple[int, ...]
    notes: Mapping[str, int]


def detect(path: Path, rules: Collection[tuple[str, str]], input_size: int | None = None) -> Detected:
    """Read the ONNX file ``path`` and find the kernels of a device that fuses the pairs ``rules``.

    Whatever nothing can price stays as a kernel under its own name, so that it is reported as uncovered. Raises
    ConfigError, DataError (see ``onnx_graph.read_onnx``), MachineError if an optional package is missing.
    """
    return detect_in(read_onnx(path, input_size), rule_file(rules))


def detect_in(graph: OnnxGraph, rules: Mapping[str, Any]) -> Detected:
    """The kernels that nn-Meter's detector finds in a graph with the content of one of its rule files."""
    ir = to_ir(contracted(graph))
    detector = detector_of(rules)
    detector.load_graph(ir.nodes)
    kept = {name for group in detector.bbs for fused in group for name in fused.split(";")}
    assert kept == set(ir.nodes), f"nn-Meter's detector lost {set(ir.nodes) - kept}"
    found = [_kernel(ir, detector.model_graph, group) for group in detector.bbs]
    kernels = tuple(kernel for kernel in found if kernel is not None)
    return Detected(kernels, graph.shapes[graph.inputs[0]], ir.notes)


def rule_file(rules: Collection[tuple[str, str]]) -> dict[str, dict[str, bool]]:
    """A device's pair rules as nn-Meter's rule file; a rule on a fused name is one on three operators."""
    theirs = {ours: name for name, ours in _NAMES.items()}
    chains = ([theirs.get(word, word) for word in (*words(first), *words(second))] for first, second in rules)
    return {f"BF_{'_'.join(chain)}": {"obey": True} for chain in chains}


def _kernel(ir: IR, graph: Any, group: Sequence[str]) -> Kernel | None:
    """The kernel of a group of fused nodes; None for what moves no data."""
    root, last = (graph.get_node_attr(group[position]) for position in (0, -1))
    first, *rest = (word for name in group for word in graph.get_node_type(name).split("-"))
    if first in _FREE:
        return None
    shapes, attributes = root["input_shape"], root["attr"]
    op = _NAMES.get(first, first)
    if op == "scale":
        shapes = shapes[:1]
    cout = last["output_shape"][0][3]
    if first == "channelshuffle":  # nn-Meter describes it by its first node, in which channels are split
        cout = shapes[0][3]
    elif first == "se":
        cout = min(ir.nodes[name]["attr"]["output_shape"][0][3] for name in attributes["primitive_nodes"])
    _, height, width, _ = shapes[0]
    kernel, stride = (attributes.get(name, [1])[0] for name in ("ks", "strides"))
    inputs = tuple(shape[3] for shape in shapes)
    return Kernel("-".join((op, *rest)), height, width, inputs, cout, kernel, stride)


def detector_of(rules: Mapping[str, Any]) -> Any:
    """nn-Meter's ``KernelDetector`` with the content of a rule file; raises MachineError if it is missing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rules.json")
        file.write_text(json.dumps(rules))
        return _detector_class()(str(file))


def _detector_class() -> Any:
    """nn-Meter's detector without its package's start-up, which writes to ~/.nn_meter and prints to stdout."""
    if "nn_meter" in sys.modules:
        return import_module("nn_meter.kernel_detector").KernelDetector
    spec = importlib.util.find_spec("nn_meter")
    if spec is None or not spec.submodule_search_locations:
        raise MachineError("nn-Meter's kernel detector is missing; install it with pip install nn-meter")
    try:
        for name, folder in (("nn_meter", ""), ("nn_meter.utils", "utils")):
            bare = ModuleType(name)
            bare.__path__ = [str(Path(path, folder)) for path in spec.submodule_search_locations]
            sys.modules[name] = bare
        return import_module("nn_meter.kernel_detector").KernelDetector
    finally:
        for name in ("nn_meter", "nn_meter.utils"):
            del sys.modules[name]
