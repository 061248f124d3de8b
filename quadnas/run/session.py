"""A run as its stages see it: where events go, when state is committed, when to stop."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from quadnas.errors import Interrupted
from quadnas.run.events import Event, Observer
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag

Snapshot = tuple[Mapping[str, Tensor], Mapping[str, Any]]


class Session:
    """Journals and forwards events; commits on time, at the ends of phases and when asked to stop.

    ``clock`` gives seconds; ``commit_seconds`` is the longest time between two commits.
    """

    def __init__(
        self,
        folder: RunFolder,
        observe: Observer,
        stop: StopFlag,
        clock: Callable[[], float],
        commit_seconds: float,
    ) -> None:
        self.folder = folder
        self._observe = observe
        self._stop = stop
        self._clock = clock
        self._commit_seconds = commit_seconds
        self._committed_at = clock()

    def emit(self, event: Event) -> None:
        """Journal an event and show it to the observers."""
        self.folder.journal.append({"event": type(event).__name__, **asdict(event)})
        self._observe(event)

    def step_done(self, step: int, snapshot: Callable[[], Snapshot]) -> None:
        """After every step: commit if it is time; raises Interrupted after a commit if asked to stop."""
        signal_number = self._stop.signal
        if signal_number is not None or self._clock() - self._committed_at >= self._commit_seconds:
            self.commit(step, snapshot)
        if signal_number is not None:
            raise Interrupted(
                f"stopped at step {step}; everything is committed: go on with --resume {self.folder.path}",
                signal_number,
            )

    def commit(self, step: int, snapshot: Callable[[], Snapshot]) -> None:
        """Make the run durable as it is now."""
        tensors, state = snapshot()
        self.folder.commit(tensors, state, step=step)
        self._committed_at = self._clock()
