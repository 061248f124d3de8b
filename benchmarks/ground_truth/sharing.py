"""Working off what a table lacks, by as many processes as there are to share it."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.ground_truth.table import EntryType, Key, SharedTable
from quadnas.errors import MachineError

POLL_SECONDS = 10.0

Job = tuple[Key, Callable[[], EntryType]]
"""A piece of work, and what does it."""


def work_off(
    table: SharedTable[EntryType],
    missing: Callable[[Sequence[EntryType]], Iterable[Job[EntryType]]],
    *,
    sleep: Callable[[float], None] = time.sleep,
    observe: Callable[[EntryType], None] = lambda _: None,
) -> None:
    """Do the first job that is ``missing`` beside the table's rows and nobody else does, until there is none.

    Ends early, between two jobs, if the process that started this one is gone.
    """
    parent = os.getppid()
    while os.getppid() == parent:
        jobs = list(missing(table.rows()))
        if not jobs:
            return
        done = next(filter(None, (table.add_once(key, make) for key, make in jobs)), None)
        if done:
            observe(done)
        else:
            sleep(POLL_SECONDS)


def in_processes(worker: Callable[..., None], arguments: tuple[Any, ...], processes: int) -> None:
    """Call ``worker`` in so many processes; raises MachineError if one of them fails."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=worker, args=arguments, daemon=True) for _ in range(processes)]
    for process in workers:
        process.start()
    for process in workers:
        process.join()
    if failed := [str(process.exitcode) for process in workers if process.exitcode]:
        raise MachineError(f"{len(failed)} of {processes} processes failed (exit code {', '.join(failed)})")
