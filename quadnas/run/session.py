"""A run as its stages see it: where it goes on, where events go, when state is committed, when to stop."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from quadnas.errors import ConfigError, Interrupted
from quadnas.run.checkpoint import Checkpoint
from quadnas.run.events import Event, Notice, Observer
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag

Snapshot = tuple[Mapping[str, Tensor], Mapping[str, Any]]


class Session:
    """Journals and forwards events; commits on time, at the ends of phases and when asked to stop.

    ``clock`` gives seconds; ``commit_seconds`` is the longest time between two commits; ``inputs`` are
    the frozen values that the run's settings only name, under the names that an error gives them.
    """

    def __init__(
        self,
        folder: RunFolder,
        observe: Observer,
        stop: StopFlag,
        clock: Callable[[], float],
        commit_seconds: float,
        inputs: Mapping[str, object],
    ) -> None:
        self.folder = folder
        self._observe = observe
        self._stop = stop
        self._clock = clock
        self._commit_seconds = commit_seconds
        self._inputs = digests(inputs)
        self._committed_at = clock()

    def resume(self) -> Checkpoint | None:
        """Go back to the last intact commit and return it; None before the first one.

        Raises ConfigError if an input is not what it was then: the result would be neither the one nor the
        other. Raises DataError, MachineError as the folder does.
        """
        checkpoint = self.folder.latest()
        if checkpoint:
            before = checkpoint.state["inputs"]
            if changed := [name for name, digest in self._inputs.items() if before.get(name) != digest]:
                raise ConfigError(
                    f"{self.folder.path} goes on only with what it was started with, and since then the "
                    f"{' and the '.join(changed)} changed; restore that, or start a new run with another --out"
                )
        self.folder.rewind(checkpoint)
        if checkpoint and checkpoint.notice:
            self.emit(Notice(checkpoint.notice))
        return checkpoint

    def emit(self, event: Event) -> None:
        """Journal an event and show it to the observers."""
        self.folder.journal.append({"event": type(event).__name__, **asdict(event)})
        self._observe(event)

    def step_done(self, step: int, snapshot: Callable[[], Snapshot]) -> None:
        """After every step: commit if it is time; raises Interrupted after a commit if asked to stop."""
        signal_number = self._stop.signal
        if signal_number is not None or self._clock() - self._committed_at >= self._commit_seconds:
            self.commit(step, snapshot)
        self._interrupt(signal_number)

    def batch_evaluated(self) -> None:
        """After every batch that changes nothing: raises Interrupted if asked to stop."""
        self._interrupt(self._stop.signal)

    def commit(self, step: int, snapshot: Callable[[], Snapshot]) -> None:
        """Make the run durable as it is now."""
        tensors, state = snapshot()
        self.folder.commit(tensors, {**state, "inputs": self._inputs}, step=step)
        self._committed_at = self._clock()

    def _interrupt(self, signal_number: int | None) -> None:
        if signal_number is not None:
            raise Interrupted(
                f"stopped; everything is committed: go on with --resume {self.folder.path}", signal_number
            )


def digests(inputs: Mapping[str, object]) -> dict[str, str]:
    """sha256 of what each frozen value looks like, which is all that it is."""
    return {name: hashlib.sha256(repr(value).encode()).hexdigest() for name, value in inputs.items()}
