"""Several processes that train one network or supernet: each takes its share of every batch, rank 0 alone writes.

Source: PyTorch's DistributedDataParallel; ``torchrun --nproc-per-node N -m quadnas.cli train ...`` starts them.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed.nn  # before there is a process group: default arguments in it would keep that for ever
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from quadnas.data.draws import Shard
from quadnas.errors import MachineError
from quadnas.run.checkpoint import Checkpoint
from quadnas.run.events import Event, Observer
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.run.session import Session, Snapshot
from quadnas.training.device import compute_device
from quadnas.training.launch import launched

TIMEOUT = timedelta(minutes=10)
"""For an answer of the others; a commit of rank 0 takes seconds."""
BUCKET_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process (``rank``, from 0) among the ``world`` that train one network together."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process owns the run folder and speaks to the user."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """The part of all data that this process loads."""
        return Shard(self.rank, self.world)

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum of everyone's ``values``, in the same tensor."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """The element-wise mean of everyone's ``values``, in the same tensor."""
        return self.sum(values).div_(self.world)

    def highest(self, value: int) -> int:
        """The largest of everyone's ``value``; nobody goes on before all have asked."""
        if self.world == 1:
            return value
        shared = torch.tensor(value)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        return int(shared)

    def told(self, text: str) -> str:
        """What rank 0 says, at every rank."""
        if self.world == 1:
            return text
        data = torch.tensor(list(text.encode()), dtype=torch.uint8)
        length = self.highest(len(data) if self.leads else 0)
        shared = data if self.leads else torch.empty(length, dtype=torch.uint8)
        distributed.broadcast(shared, 0)
        return bytes(shared.tolist()).decode()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the mean of everyone's gradients in their place, where there are any; at every rank the same have.

        They travel together, ``BUCKET_BYTES`` at a time.
        """
        if self.world == 1:
            return
        bucket: list[Tensor] = []
        for gradient in [p.grad for p in parameters if p.grad is not None]:
            if bucket and (gradient.dtype, gradient.device) != (bucket[0].dtype, bucket[0].device):
                self._average(bucket)
                bucket = []
            bucket.append(gradient)
            if sum(part.nbytes for part in bucket) >= BUCKET_BYTES:
                self._average(bucket)
                bucket = []
        if bucket:
            self._average(bucket)

    def _average(self, gradients: list[Tensor]) -> None:
        means = self.mean(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        parts = means.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def check(self, module: nn.Module) -> None:
        """Raise MachineError if ``module`` cannot be trained like this: batch normalisation, not on GPUs."""
        if self.world > 1 and _normalizes(module) and compute_device().type != "cuda":
            raise MachineError(
                "batch normalisation needs the statistics of the whole batch, which several processes can share "
                f"on GPUs only, and this machine has none; train this network in one process, not {self.world}"
            )

    def share_statistics(self, module: nn.Module) -> None:
        """Make batch normalisation inside ``module`` see the whole batch; raises what ``check`` raises."""
        self.check(module)
        if self.world > 1 and _normalizes(module):
            nn.SyncBatchNorm.convert_sync_batchnorm(module)  # in place, as no module here is one itself

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module whose backward pass averages the gradients of all ranks; it shares the weights.

        Raises what ``check`` raises.
        """
        self.share_statistics(module)
        if self.world == 1:
            return module
        device = compute_device()
        return DistributedDataParallel(module, device_ids=[device.index] if device.type == "cuda" else None)


def _normalizes(module: nn.Module) -> bool:
    return any(isinstance(part, _BatchNorm) for part in module.modules())


ALONE = Ranks()


def without_exchange(module: nn.Module, quiet: bool) -> AbstractContextManager[None]:
    """While ``quiet``, gradients of a ``Ranks.parallel`` module stay at their rank: more of the batch follows."""
    if quiet and isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return nullcontext()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Meet the other processes that torchrun started, and part from them in the end; alone without torchrun.

    Raises MachineError if they cannot be reached, then or later.
    """
    here = launched()
    if here.world == 1:
        yield ALONE
        return
    device = compute_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT
        )
        yield Ranks(here.rank, here.world)
    except RuntimeError as error:
        if not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
            raise
        text = str(error).splitlines()[0]
        reason = (text.partition("] ")[2] or text).partition(". ")[0]  # gloo begins with its line of code
        raise MachineError(
            f"process {here.rank} of {here.world} lost the others ({reason}); the first that ended says why; "
            "go on from the last commit with --resume"
        ) from None
    finally:
        if distributed.is_initialized():
            # networks in cycles hold the group, whose threads, if they outlive it, can abort the exit
            gc.collect()
            distributed.destroy_process_group()


class SharedSession(Session):
    """The session of several processes: rank 0 writes and reports, and all stop after the same step."""

    def __init__(
        self,
        ranks: Ranks,
        folder: RunFolder,
        observe: Observer,
        stop: StopFlag,
        clock: Callable[[], float],
        commit_seconds: float,
        inputs: dict[str, Any],
    ) -> None:
        self._ranks = ranks
        self._stop_here, agreed = stop, StopFlag()
        super().__init__(folder, observe, agreed, clock, commit_seconds, inputs)

    def resume(self) -> Checkpoint | None:
        """The last intact commit, which every process reads from the same folder."""
        checkpoint = super().resume() if self._ranks.leads else None
        self._ranks.highest(0)  # what is corrupt is gone now
        if not self._ranks.leads:
            checkpoint = self.folder.latest()
        self._ranks.highest(0)  # nobody commits while another still reads
        return checkpoint

    def emit(self, event: Event) -> None:
        """Journal an event and show it to the observers, once."""
        if self._ranks.leads:
            super().emit(event)

    def step_done(self, step: int, snapshot: Callable[[], Snapshot]) -> None:
        """As in one process; a signal to any of them reaches all."""
        self._agree()
        super().step_done(step, snapshot)

    def batch_evaluated(self) -> None:
        """As in one process; everyone calls it equally often."""
        self._agree()
        super().batch_evaluated()

    def commit(self, step: int, snapshot: Callable[[], Snapshot]) -> None:
        """Rank 0 makes the run durable as it is now."""
        if self._ranks.leads:
            super().commit(step, snapshot)

    def write(self, name: str, data: bytes | str) -> None:
        """Rank 0 commits a file of the run."""
        if self._ranks.leads:
            self.folder.write(name, data)

    def _agree(self) -> None:
        self._stop.signal = self._ranks.highest(self._stop_here.signal or 0) or None

    def _interrupt(self, signal_number: int | None) -> None:
        if signal_number is not None:
            self._ranks.highest(0)  # torchrun ends all once one has ended: not before the commit is done
        super()._interrupt(signal_number)
