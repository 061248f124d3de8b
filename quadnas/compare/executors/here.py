"""Units in this process, one after the other."""

from collections.abc import Generator, Iterable
from functools import partial

from quadnas.compare.executor import EXECUTORS, HERE, Answer, Executor, attempt
from quadnas.compare.experiment import Bench, Unit, Work
from quadnas.compare.machine import machine_text


@EXECUTORS.register(HERE)
class Here(Executor):
    """Keeps what is loaded from unit to unit."""

    concurrent = False

    def measure(self, units: Iterable[Unit], work: Work, bench: Bench) -> Generator[Answer, None, None]:
        """See ``Executor``."""
        machine = machine_text()
        for unit in units:
            yield Answer(unit, attempt(partial(work.measure, unit, bench)), machine)
            if bench.stop.signal is not None:
                return
