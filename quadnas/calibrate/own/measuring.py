"""Timing on a machine that is not quite ours: interleaved rounds, a reference beside the visits, medians.

Every round visits every graph once, so that each starts from the caches another one left, as a layer does in a
network. A visit counts only if its process kept the processor, and only between two runs of a reference that
were not slower than usual: what slows the machine for a while (a busy sibling of the core, a lower clock)
slows the reference too.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import numpy as np

from quadnas.errors import ConfigError

Runnable = Callable[[], object]
Timer = Callable[[Runnable], tuple[float, float]]
"""Runs something once; returns the wall-clock time and the process's processor time in ms."""

GROUP_MS = 5.0
TOLERANCE = 1.1
WAITING = 0.05, 0.1  # share of a visit, plus ms, that may pass without computing: more is another process
USUAL = 0.2  # quantile of the reference's times that counts as undisturbed


def timed_ms(run: Runnable) -> tuple[float, float]:
    """Run something once; the wall-clock time and the processor time of this process in ms."""
    start, start_cpu = time.perf_counter_ns(), time.process_time_ns()
    run()
    end_cpu, end = time.process_time_ns(), time.perf_counter_ns()
    return (end - start) / 1e6, (end_cpu - start_cpu) / 1e6


@dataclass(frozen=True, slots=True)
class Timing:
    """The median in ms of the ``visits`` that counted, and their interquartile range as a share of it.

    ``disturbed`` is the share of visits that did not count. Where none counted, ``visits`` is 0 and
    ``latency_ms`` the lower quartile of what all of them computed.
    """

    latency_ms: float
    spread: float
    visits: int
    disturbed: float


class Reference:
    """A fixed piece of work whose usual time tells an undisturbed machine from a disturbed one.

    ``usual_ms`` is what it takes when nothing disturbs, by all runs so far.
    """

    def __init__(self, run: Runnable, timer: Timer, runs: int = 200) -> None:
        self._run = run
        self._timer = timer
        self._seen_ms = [timer(run)[1] for _ in range(runs)]
        self._settle()

    def _settle(self) -> None:
        self.usual_ms = float(np.quantile(self._seen_ms, USUAL))
        self._settled = len(self._seen_ms)

    def calm(self) -> bool:
        """Run it once: whether the machine is undisturbed."""
        took_ms = self._timer(self._run)[1]
        self._seen_ms.append(took_ms)
        if len(self._seen_ms) > 1.1 * self._settled:
            self._settle()
        return took_ms <= TOLERANCE * self.usual_ms


def measure(
    runs: Sequence[Runnable], reference: Reference, timer: Timer, visits: int, patience: int
) -> list[Timing]:
    """Time every graph in ``visits`` visits that count, or as many of them as ``patience`` rounds give."""
    for run in runs:
        run()
        run()
    counted: list[list[float]] = [[] for _ in runs]
    lost: list[list[float]] = [[] for _ in runs]
    for _ in range(patience):
        wanting = [i for i in range(len(runs)) if len(counted[i]) < visits]
        if not wanting:
            break
        for group in _groups(wanting, runs, timer, reference):
            calm = group.calm
            for i, wall_ms, cpu_ms in group.visits:
                if calm and wall_ms - cpu_ms <= WAITING[0] * wall_ms + WAITING[1]:
                    counted[i].append(wall_ms)
                else:
                    lost[i].append(min(wall_ms, cpu_ms))
    return [_timing(good, bad) for good, bad in zip(counted, lost, strict=True)]


@dataclass(frozen=True, slots=True)
class _Group:
    """Visits (graph, wall ms, processor ms) between two runs of the reference."""

    visits: list[tuple[int, float, float]]
    calm: bool


def _groups(
    wanting: Sequence[int], runs: Sequence[Runnable], timer: Timer, reference: Reference
) -> list[_Group]:
    groups: list[_Group] = []
    visits: list[tuple[int, float, float]] = []
    before = reference.calm()
    for i in wanting:
        visits.append((i, *timer(runs[i])))
        if sum(wall_ms for _, wall_ms, _ in visits) >= GROUP_MS or i == wanting[-1]:
            after = reference.calm()
            groups.append(_Group(visits, before and after))
            visits, before = [], after
    return groups


def _timing(counted: Sequence[float], lost: Sequence[float]) -> Timing:
    disturbed = round(len(lost) / (len(counted) + len(lost)), 4)
    if not counted:
        return Timing(float(np.quantile(lost, 0.25)), 1.0, 0, disturbed)
    low, high = np.quantile(counted, (0.25, 0.75))
    middle = median(counted)
    return Timing(middle, round(float(high - low) / middle, 4), len(counted), disturbed)


class LoadMeter:
    """What the machine did beside, since it was last asked."""

    def __init__(self) -> None:
        self._total, self._stolen = _processor_ticks()

    def read(self) -> dict[str, float]:
        """``queue``: processes that wanted to run (1 minute); ``stolen``: share of time the host took."""
        total, stolen = _processor_ticks()
        passed, taken = total - self._total, stolen - self._stolen
        self._total, self._stolen = total, stolen
        return {"queue": round(os.getloadavg()[0], 2), "stolen": round(taken / max(passed, 1), 4)}


def _processor_ticks() -> tuple[int, int]:
    """All processor time so far, and what of it the host took, in clock ticks; 0 where the system does not say."""
    try:
        with open("/proc/stat", encoding="ascii") as file:  # noqa: PTH123
            ticks = [int(word) for word in file.readline().split()[1:9]]
    except OSError:
        return 0, 0
    return sum(ticks), ticks[7]


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this process on ``threads`` processors, the last it may use; raises ConfigError for more than those."""
    if not hasattr(os, "sched_setaffinity"):  # where the system cannot pin, it schedules
        yield
        return
    allowed = os.sched_getaffinity(0)
    if threads > len(allowed):
        raise ConfigError(
            f"--threads is at most {len(allowed)}, the processors of this process, not {threads}"
        )
    os.sched_setaffinity(0, sorted(allowed)[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
