"""The bench: graphs are loaded and timed in batches, and every batch becomes a line of the journal."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from quadnas.calibrate.own.measuring import LoadMeter, Reference, Timer, Timing, measure
from quadnas.calibrate.own.runtime import Graph, Runtime
from quadnas.errors import DataError, Interrupted
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag

BATCH = 16
VISITS = 15
PATIENCE = 60  # rounds; four times as many as are wanted


@dataclass(frozen=True, slots=True)
class Measured:
    """A graph and how long it took."""

    graph: Graph
    timing: Timing


class Bench:
    """Measures graphs stage by stage, or reads from the journal what was measured before a kill.

    ``clock`` gives seconds. ``observe`` is told, after every batch, the stage, how many graphs are done, and
    the load beside.
    """

    def __init__(
        self,
        folder: RunFolder,
        runtime: Runtime,
        reference: Graph,
        timer: Timer,
        clock: Callable[[], float],
        stop: StopFlag,
        observe: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._runtime = runtime
        self._graph = reference
        self._reference: Reference | None = None
        self._timer = timer
        self._clock = clock
        self._stop = stop
        self._observe = observe
        self._load = LoadMeter()
        self._journal: dict[str, list[dict[str, Any]]] = {}
        for event in folder.journal.read():
            self._journal.setdefault(str(event.get("stage")), []).append(event)

    def run(self, stage: str, graphs: Iterable[Graph], count: int, seconds: float) -> list[Measured]:
        """Measure graphs until there are ``count`` of them or ``seconds`` are used up, at least one batch.

        Raises Interrupted between two batches if asked to stop, DataError if the journal is of other graphs.
        """
        before = self._journal.get(stage, [])
        source = iter(graphs)
        done: list[Measured] = []
        spent = 0.0
        while len(done) < count and (not done or spent < seconds):
            batch = list(islice(source, min(BATCH, count - len(done))))
            if not batch:
                break
            if before:
                event = before.pop(0)
            else:
                self._raise_if_stopped()
                event = self._measure(stage, batch)
                self._folder.journal.append(event)
            done += self._read(event, batch)
            spent += event["seconds"]
            self._observe(f"{stage}: {len(done)} of at most {count}, load {event['load']['queue']:g}")
        return done

    def _measure(self, stage: str, batch: Sequence[Graph]) -> dict[str, Any]:
        start = self._clock()
        if self._reference is None:
            self._reference = Reference(self._runtime.load(self._graph), self._timer)
        runs = [self._runtime.load(graph) for graph in batch]
        timings = measure(runs, self._reference, self._timer, VISITS, PATIENCE)
        return {
            "event": "Batch",
            "stage": stage,
            "graphs": _digest(batch),
            "timings": [asdict(timing) for timing in timings],
            "reference_ms": self._reference.usual_ms,
            "load": self._load.read(),
            "seconds": round(self._clock() - start, 3),
        }

    def _read(self, event: dict[str, Any], batch: Sequence[Graph]) -> list[Measured]:
        try:
            timings = [Timing(**timing) for timing in event["timings"]]
            usable = event["graphs"] == _digest(batch) and len(timings) == len(batch)
            usable = usable and all(timing.latency_ms > 0 for timing in timings) and event["seconds"] >= 0
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{self._folder.path}: the journal holds no batch of measurements: {error}"
            ) from None
        if not usable:
            raise DataError(
                f"{self._folder.path}: the journal is of other measurements than these settings ask for; "
                "start anew in another folder with --out"
            )
        return [Measured(graph, timing) for graph, timing in zip(batch, timings, strict=True)]

    def _raise_if_stopped(self) -> None:
        if self._stop.signal is not None:
            raise Interrupted(
                f"stopped; what was measured is kept in {self._folder.path}: the same command goes on",
                self._stop.signal,
            )


def _digest(batch: Sequence[Graph]) -> str:
    return hashlib.sha256(repr(batch).encode()).hexdigest()[:16]
