"""A runtime whose latencies follow a formula: nothing is run, and a graph carries its own time."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np

from quadnas.calibrate.own.bench import Bench
from quadnas.calibrate.own.device import open_calibration
from quadnas.calibrate.own.measuring import Runnable
from quadnas.calibrate.own.runtime import Graph, Runtime
from quadnas.calibrate.own.sampling import reference_chain
from quadnas.calibrate.own.settings import CalibrateSettings
from quadnas.latency.kernels import Kernel
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.testing.latency import multiply_accumulates


@cache
def formula_ms(kernel: Kernel) -> float:
    """2 us for every kernel, 20 GMAC/s, 1 ns for every value written."""
    outputs = 1 if kernel.op == "global-pool" else (-(-kernel.h // kernel.stride)) ** 2
    return 2e-3 + multiply_accumulates(kernel) / 20e6 + outputs * kernel.cout * 1e-6


class Timed:
    """A graph that is ready to run; ``latency_ms`` is what it takes."""

    def __init__(self, latency_ms: float) -> None:
        self.latency_ms = latency_ms

    def __call__(self) -> None:
        """Takes no time at all."""


class FormulaRuntime(Runtime):
    """A graph takes the sum over its kernels, each by ``formula``, times a factor of the whole graph."""

    def __init__(
        self,
        formula: Callable[[Kernel], float] = formula_ms,
        factor: Callable[[Graph], float] = lambda _: 1.0,
    ) -> None:
        super().__init__(1)
        self.loaded = 0
        self._formula = formula
        self._factor = factor

    @property
    def description(self) -> str:
        """Made up."""
        return "a formula"

    def load(self, graph: Graph) -> Runnable:
        """Nothing but the time."""
        self.loaded += 1
        return Timed(
            self._factor(graph) * sum(self._formula(operator.kernel) for operator in graph.operators)
        )


def exact(run: Runnable) -> tuple[float, float]:
    """What an undisturbed machine would show."""
    assert isinstance(run, Timed)
    return run.latency_ms, run.latency_ms


def noisy(sigma: float, seed: int = 0) -> Callable[[Runnable], tuple[float, float]]:
    """Times off by a log-normal draw of ``sigma`` for every visit."""
    generator = np.random.default_rng(seed)

    def timer(run: Runnable) -> tuple[float, float]:
        assert isinstance(run, Timed)
        latency_ms = run.latency_ms * float(np.exp(sigma * generator.standard_normal()))
        return latency_ms, latency_ms

    return timer


def seconds() -> Callable[[], float]:
    """A clock that stands still but for one second at every look."""
    ticks: Iterator[int] = count()
    return lambda: float(next(ticks))


def bench(
    folder: RunFolder,
    runtime: Runtime,
    timer: Callable[[Runnable], tuple[float, float]] = exact,
    stop: StopFlag | None = None,
) -> Bench:
    """A bench in an open folder, one second a batch."""
    reference = Graph("reference", reference_chain())
    return Bench(folder, runtime, reference, timer, seconds(), stop or StopFlag(), lambda _: None)


def begun(path: Path, **changes: object) -> tuple[CalibrateSettings, RunFolder]:
    """Settings of a short calibration and its folder."""
    values = {"device": "mine", "runtime": "torch", "input_size": 64, "minutes": 0.2, **changes}
    settings = CalibrateSettings.model_validate(values)
    return settings, open_calibration(settings, path)
