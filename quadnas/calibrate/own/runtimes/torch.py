"""PyTorch in eager mode, channels-last."""

import torch
from torch import nn

from quadnas.calibrate.own.measuring import Runnable
from quadnas.calibrate.own.modules import OperatorModule, network_module
from quadnas.calibrate.own.runtime import RUNTIMES, Graph, Runtime


@RUNTIMES.register("torch")
class Torch(Runtime):
    """Modules in evaluation and inference mode."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        torch.set_num_threads(threads)

    @property
    def description(self) -> str:
        """Name, version and settings."""
        version = torch.__version__.split("+")[0]
        return f"PyTorch {version}, eager, channels-last, CPU, {self.threads} thread{'s'[: self.threads > 1]}"

    def load(self, graph: Graph) -> Runnable:
        """A call of the module."""
        module: nn.Module = network_module(graph.layers) if graph.layers else OperatorModule(graph.operators)
        module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = torch.rand(graph.shape, generator=torch.Generator().manual_seed(0))
        images = images.contiguous(memory_format=torch.channels_last)

        def run() -> object:
            with torch.inference_mode():
                return module(images)

        return run
