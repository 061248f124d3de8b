"""The events of a run for TensorBoard: one of its runs for each phase, in the folder ``tensorboard``."""

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from quadnas.extras import optional
from quadnas.run.events import ArchitectureStep, Evaluated, Event, PhaseStarted, WeightStep

FOLDER = "tensorboard"
_FLUSH_SECONDS = 5


def require_tensorboard() -> Any:
    """The class that writes for TensorBoard; raises MachineError naming the extra where that is missing."""
    return optional("torch.utils.tensorboard", "tensorboard").SummaryWriter


class TensorBoard(AbstractContextManager["TensorBoard"]):
    """An observer that writes scalars into a run's folder; a kill loses those of the last seconds.

    A phase that goes on withdraws what was written of the steps that it repeats. Latencies in ms, accuracies as
    fractions. Raises MachineError where TensorBoard is missing.
    """

    def __init__(self, run: Path) -> None:
        self._folder = run / FOLDER
        self._new_writer = require_tensorboard()
        self._writer: Any = None
        self._step = 0

    def __call__(self, event: Event) -> None:
        """Write an event; unknown ones are passed over."""
        match event:
            case PhaseStarted():
                self._close()
                self._step = event.step
                folder = self._folder / event.phase
                self._writer = self._new_writer(folder, purge_step=event.step + 1, flush_secs=_FLUSH_SECONDS)
            case WeightStep():
                self._step = event.step
                self._write(loss=event.loss, accuracy=event.accuracy, learning_rate=event.learning_rate)
            case ArchitectureStep():
                self._write(
                    **{"architecture/loss": event.loss, "architecture/accuracy": event.accuracy},
                    **{
                        f"latency/{key}": getattr(event, key)
                        for key in ("expected_ms", "argmax_ms", "limit_ms")
                    },
                    **{"latency/multiplier": event.multiplier},
                )
                for limit in event.beside:
                    keys = ("expected", "argmax", "limit", "multiplier")
                    self._write(**{f"{limit.name}/{key}": getattr(limit, key) for key in keys})
            case Evaluated():
                name = f"{event.split}_{event.network}"
                self._write(**{f"{name}/loss": event.loss, f"{name}/accuracy": event.accuracy})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _write(self, **scalars: float) -> None:
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, self._step)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
