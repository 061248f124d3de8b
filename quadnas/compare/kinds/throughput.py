"""Images per second of networks side by side: in every round each of them runs once, and the median counts."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import ClassVar, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from quadnas.compare.experiment import KINDS, Bench, Record, Unit, Work
from quadnas.compare.figures import bars, ratio_panels, value_panel
from quadnas.compare.machine import machine_text
from quadnas.compare.networks import Count, NetworkExperiment, fingerprint, size_of
from quadnas.compare.table import Column, Table, Value
from quadnas.training.device import arithmetic, compute_device
from quadnas.training.standalone import new_network

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_WARMUP = 2


@KINDS.register("throughput")
class Throughput(NetworkExperiment):
    """Inference on the GPU with batches of ``gpu_batch``, else on the CPU with ``batch`` and ``threads``.

    ``precision`` below fp32 is autocast's. With one thread its own CPU time is taken, which other programs do not
    lengthen; wall-clock time otherwise.
    """

    batch: Count = 8
    gpu_batch: Count = 64
    threads: Count = 1
    rounds: Count = 9
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    undisturbed: ClassVar[bool] = True

    def prepare(self) -> "ThroughputWork":
        """Lay out every network."""
        return ThroughputWork(self)

    def units(self) -> tuple[Unit, ...]:
        """Round by round."""
        return tuple(Unit(arm, f"round{number}") for number in range(1, self.rounds + 1) for arm in self.arms)

    def columns(self) -> tuple[Column, ...]:
        """Images per second first; ``spread`` is half the distance of the quartiles over the median."""
        return (
            Column("images_per_s", "images/s", 2),
            Column("spread", "+-, %", 1, 100),
            Column("parameters", "parameters, M", 2, 1e-6),
            Column("macs", "GMACs", 2, 1e-9),
        )

    def row(self, arm: str, records: Sequence[Record]) -> dict[str, Value]:
        """Over the rounds."""
        seconds = sorted(record["seconds"] for record in records)
        middle = median(seconds)
        quarter = len(seconds) // 4
        return {
            "images_per_s": records[0]["batch"] / middle,
            "spread": (seconds[-1 - quarter] - seconds[quarter]) / 2 / middle,
            "parameters": records[0]["parameters"],
            "macs": records[0]["macs"],
        }

    def notes(self, records: Mapping[str, Sequence[Record]]) -> tuple[str, ...]:
        """How it was measured."""
        first = next(iter(records.values()), [])
        if not first:
            return ()
        how = first[0]["how"]
        return (
            f"Forward pass of {first[0]['batch']} images of {self.input_size}x{self.input_size} pixels, "
            f"{self.precision}, {how}; medians of {self.rounds} interleaved rounds.",
        )

    def draw(self, table: Table, records: Mapping[str, Sequence[Record]]) -> Figure:
        """Throughput, and ratios with the paper's beside; its images/s are those of another machine."""
        ours = value_panel(table, "images_per_s", with_paper=False)
        return bars(table.rows, [ours, *ratio_panels(table, "images/s")])


class ThroughputWork(Work):
    """Keeps the networks that were built, so that a round costs no more than its forward passes."""

    def __init__(self, experiment: Throughput) -> None:
        self._experiment = experiment
        self._specs = experiment.specs()
        self._networks: dict[str, nn.Module] = {}
        self.inputs: Mapping[str, object] = {
            **fingerprint(self._specs),
            "machine": machine_text(),
            **arithmetic(compute_device()),
        }

    def measure(self, unit: Unit, bench: Bench) -> Record:
        """One forward pass."""
        settings, device = self._experiment, compute_device()
        on_gpu = device.type == "cuda"
        batch = settings.gpu_batch if on_gpu else settings.batch
        side = settings.input_size
        images = torch.zeros(batch, 3, side, side, device=device).to(memory_format=torch.channels_last)
        dtype = PRECISIONS[settings.precision]
        clock, how = _clock(on_gpu, settings.threads, bench.clock)
        with (
            threads_set_to(settings.threads),
            torch.inference_mode(),
            torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
        ):
            network = self._warm(unit.arm, images)
            start = clock()
            network(images)
            seconds = clock() - start
        size = size_of(self._specs[unit.arm].layers, side)
        return {"seconds": seconds, "batch": batch, "how": how, **size}

    def _warm(self, arm: str, images: Tensor) -> nn.Module:
        """The network of an arm, built and run a few times when it is needed first."""
        if arm not in self._networks:
            network = new_network(self._specs[arm], 0).eval().to(images.device)
            for _ in range(_WARMUP):
                network(images)
            self._networks[arm] = network
        return self._networks[arm]


def _clock(on_gpu: bool, threads: int, wall: Callable[[], float]) -> tuple[Callable[[], float], str]:
    """Seconds, and what they are in words."""
    if on_gpu:

        def synchronized() -> float:
            torch.cuda.synchronize()
            return wall()

        return synchronized, "on the GPU"
    if threads == 1:
        return time.process_time, "one thread, its own CPU time"
    return wall, f"{threads} threads, wall-clock time"


@contextmanager
def threads_set_to(count: int) -> Iterator[None]:
    """Let torch compute with ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
