"""Export as ONNX: one self-contained file, fixed batch 1 and input size."""

from pathlib import Path

from quadnas.export.base import TARGETS, Target
from quadnas.export.onnx_graph import network_onnx
from quadnas.export.verify import require_equal
from quadnas.extras import optional
from quadnas.network import Network
from quadnas.run.atomic import commit_bytes
from quadnas.space.model_spec import ModelSpec


def export_onnx(spec: ModelSpec, network: Network, notes: dict[str, str], path: Path) -> list[Path]:
    """Write ``path`` if ONNX Runtime gives the network's logits on it."""
    runtime = optional("onnxruntime", "onnx")
    data = network_onnx(spec, network)
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    require_equal(network, spec.input, lambda images: session.run(None, {"images": images})[0], path)
    commit_bytes(path, data)
    return [path]


TARGETS.register("onnx")(Target(".onnx", export_onnx))
