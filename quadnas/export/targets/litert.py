"""Export as LiteRT (TensorFlow Lite): one ``.tflite`` file, float32, images (1, H, W, C) as phones hold them."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from quadnas.export.base import TARGETS, Target
from quadnas.export.quiet import quiet
from quadnas.export.verify import Images, require_equal
from quadnas.extras import optional
from quadnas.network import Network, deployed
from quadnas.run.atomic import commit_bytes
from quadnas.space.model_spec import ModelSpec


class _ChannelsLastImages(nn.Module):
    """(N, H, W, C) -> what ``network`` gives for (N, C, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        return self.network(images.permute(0, 3, 1, 2))


def export_litert(spec: ModelSpec, network: Network, notes: dict[str, str], path: Path) -> list[Path]:
    """Write ``path`` if the LiteRT interpreter gives the network's logits on it."""
    with quiet():
        converter = optional("litert_torch", "litert")
        runtime = optional("ai_edge_litert.interpreter", "litert")
    module = _ChannelsLastImages(deployed(spec.layers, network)).eval()
    size = spec.input
    images = torch.zeros(1, size.size, size.size, size.channels)
    with TemporaryDirectory() as folder, quiet():
        converter.convert(module, (images,)).export(f"{folder}/model.tflite")
        data = Path(folder, "model.tflite").read_bytes()
    require_equal(network, spec.input, _interpreter(runtime, data), path)
    commit_bytes(path, data)
    return [path]


def _interpreter(runtime: Any, data: bytes) -> Callable[[Images], Any]:
    """What the file computes, for images (1, C, H, W)."""
    interpreter = runtime.Interpreter(model_content=data)
    interpreter.allocate_tensors()
    (fed,), (read,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: Images) -> Any:
        interpreter.set_tensor(fed["index"], images.transpose(0, 2, 3, 1))
        interpreter.invoke()
        return interpreter.get_tensor(read["index"])

    return run


TARGETS.register("litert")(Target(".tflite", export_litert))
