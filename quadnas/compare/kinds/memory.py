"""What training keeps in memory: bytes saved for the backward pass, counted, and on a GPU the measured peak.

The count runs on the meta device, which holds no data: it is exact for any batch on any machine.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from quadnas.compare.experiment import KINDS, Bench, Record, Unit, Work
from quadnas.compare.figures import bars, ratio_panels, value_panel
from quadnas.compare.machine import machine_text
from quadnas.compare.networks import Count, NetworkExperiment, fingerprint, size_of
from quadnas.compare.table import Column, Table, Value
from quadnas.network import Network
from quadnas.space.model_spec import ModelSpec
from quadnas.training.standalone import new_network

MIB = 1 / 2**20
_STATE_BYTES = 16  # fp32 weight, gradient and AdamW's two moments


def saved_bytes(network: nn.Module, images: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass of ``network(images)``, every storage once.

    Parameters and buffers are left out, for they are there anyway; the images count if a gradient needs them.
    """
    known = [*network.parameters(), *network.buffers()]
    owned = {tensor.untyped_storage()._cdata for tensor in known}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage  # kept, so that no other storage takes its place
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = network(images)
    del kept
    return sum(storage.nbytes() for key, storage in saved.items() if key not in owned)


def peak_bytes(network: nn.Module, images: Tensor) -> int:
    """The most that the GPU holds at once in a forward and backward pass, weights and gradients included.

    It is the second pass that counts: in the first one Triton times its kernels, with a buffer of 256 MiB.
    """
    network.train()
    for _ in range(2):
        network.zero_grad(set_to_none=True)
        torch.cuda.reset_peak_memory_stats(images.device)
        network(images).sum().backward()
        torch.cuda.synchronize(images.device)
    return torch.cuda.max_memory_allocated(images.device)


@KINDS.register("training-memory")
class TrainingMemory(NetworkExperiment):
    """One training step of every arm on ``batch`` images of side ``input_size``, fp32."""

    batch: Count = 64
    undisturbed: ClassVar[bool] = True

    def prepare(self) -> "MemoryWork":
        """Lay out every network."""
        return MemoryWork(self)

    def columns(self) -> tuple[Column, ...]:
        """Saved bytes first."""
        return (
            Column("saved_bytes", "saved for backward, MiB", 0, MIB),
            Column("peak_bytes", "GPU peak, MiB", 0, MIB),
            Column("bytes_per_image", "per image, MiB", 1, MIB),
            Column("parameters", "parameters, M", 2, 1e-6),
            Column("state_bytes", "weights, gradients, AdamW, MiB", 0, MIB),
        )

    def row(self, arm: str, records: Sequence[Record]) -> dict[str, Value]:
        """The one record, with what follows from it."""
        (record,) = records
        return {
            **record,
            "bytes_per_image": record["saved_bytes"] / self.batch,
            "state_bytes": _STATE_BYTES * record["parameters"],
        }

    def draw(self, table: Table, records: Mapping[str, Sequence[Record]]) -> Figure:
        """Saved bytes, and ratios."""
        return bars(table.rows, [value_panel(table, "saved_bytes"), *ratio_panels(table, "saved bytes")])


class MemoryWork(Work):
    """Networks without data for the count, and real ones on a GPU."""

    def __init__(self, experiment: TrainingMemory) -> None:
        self._experiment = experiment
        self._specs = experiment.specs()
        self.inputs: Mapping[str, object] = {**fingerprint(self._specs), "machine": machine_text()}

    def measure(self, unit: Unit, bench: Bench) -> Record:
        """Count, and measure the peak where there is a GPU."""
        spec, settings = self._specs[unit.arm], self._experiment
        shape = (settings.batch, 3, settings.input_size, settings.input_size)
        with torch.device("meta"):
            count = saved_bytes(Network(spec.layers).train(), torch.empty(shape))
        record = {"saved_bytes": count, "parameters": size_of(spec.layers, settings.input_size)["parameters"]}
        return {**record, **_gpu_peak(spec, shape)}


def _gpu_peak(spec: ModelSpec, shape: tuple[int, ...]) -> Record:
    if not torch.cuda.is_available():
        return {}
    torch.cuda.empty_cache()
    images = torch.zeros(shape, device="cuda")
    return {"peak_bytes": peak_bytes(new_network(spec, 0).to("cuda"), images)}
