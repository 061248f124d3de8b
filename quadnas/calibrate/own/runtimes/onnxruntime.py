"""ONNX Runtime on the processor, all graph optimisations."""

import numpy as np

from quadnas.calibrate.own.measuring import Runnable
from quadnas.calibrate.own.onnx_graphs import OnnxModels
from quadnas.calibrate.own.runtime import RUNTIMES, Graph, Runtime
from quadnas.extras import optional


@RUNTIMES.register("onnxruntime")
class OnnxRuntime(Runtime):
    """Sequential execution, input and output bound once."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._ort = optional("onnxruntime", "onnx")
        self._models = OnnxModels("onnx")

    @property
    def description(self) -> str:
        """Name, version and settings."""
        return f"ONNX Runtime {self._ort.__version__}, CPU, {self.threads} thread{'s'[: self.threads > 1]}"

    def load(self, graph: Graph) -> Runnable:
        """A run of the session."""
        options = self._ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.execution_mode = self._ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        session = self._ort.InferenceSession(
            self._models.of(graph), options, providers=["CPUExecutionProvider"]
        )
        (images,), (result,) = session.get_inputs(), session.get_outputs()
        values = np.random.default_rng(0).random(images.shape, np.float32)
        binding = session.io_binding()
        binding.bind_ortvalue_input(images.name, self._ort.OrtValue.ortvalue_from_numpy(values))
        binding.bind_output(result.name)
        return lambda: session.run_with_iobinding(binding)
