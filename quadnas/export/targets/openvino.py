"""Export as OpenVINO IR: ``.xml`` with the ``.bin`` of its weights beside it, float32."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from quadnas.export.base import TARGETS, Target
from quadnas.export.onnx_graph import network_onnx
from quadnas.export.verify import require_equal
from quadnas.extras import optional
from quadnas.network import Network
from quadnas.run.atomic import commit_bytes
from quadnas.space.model_spec import ModelSpec


def export_openvino(spec: ModelSpec, network: Network, notes: dict[str, str], path: Path) -> list[Path]:
    """Write ``path`` and its weights if OpenVINO, computing in float32, gives the network's logits on them."""
    openvino = optional("openvino", "openvino")
    graph, weights = _converted(openvino, network_onnx(spec, network))
    core = openvino.Core()
    read = core.read_model(model=graph, weights=weights)
    # Left alone, a CPU that has bfloat16 computes in it, and differs by a hundredth.
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    require_equal(network, spec.input, lambda images: compiled([images])[0], path)
    commit_bytes(path.with_suffix(".bin"), weights)
    commit_bytes(path, graph)
    return [path, path.with_suffix(".bin")]


def _converted(openvino: Any, data: bytes) -> tuple[bytes, bytes]:
    """The two files that OpenVINO makes of an ONNX file, with weights in full precision."""
    with TemporaryDirectory() as folder:
        graph, weights = Path(folder, "model.xml"), Path(folder, "model.bin")
        openvino.save_model(openvino.Core().read_model(model=data), graph, compress_to_fp16=False)
        return graph.read_bytes(), weights.read_bytes()


TARGETS.register("openvino")(Target(".xml", export_openvino))
