"""OpenVINO on the processor, one stream. It would compute in bf16 where the processor can: f32 is asked for."""

import numpy as np

from quadnas.calibrate.own.measuring import Runnable
from quadnas.calibrate.own.onnx_graphs import OnnxModels
from quadnas.calibrate.own.runtime import RUNTIMES, Graph, Runtime
from quadnas.extras import optional


@RUNTIMES.register("openvino")
class OpenVino(Runtime):
    """One infer request, called synchronously."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._openvino = optional("openvino", "openvino")
        self._models = OnnxModels("openvino")
        self._core = self._openvino.Core()

    @property
    def description(self) -> str:
        """Name, version and settings."""
        version = self._openvino.__version__.split("-")[0]
        return f"OpenVINO {version}, CPU, 1 stream, {self.threads} thread{'s'[: self.threads > 1]}"

    def load(self, graph: Graph) -> Runnable:
        """A synchronous inference."""
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # the process is pinned as a whole
        }
        model = self._core.compile_model(self._core.read_model(self._models.of(graph)), "CPU", settings)
        request = model.create_infer_request()
        values = np.random.default_rng(0).random(tuple(model.inputs[0].shape), np.float32)
        request.set_input_tensor(self._openvino.Tensor(values))
        return lambda: request.infer(share_outputs=True)
