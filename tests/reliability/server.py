"""A process that has torch loaded and forks a child for every job, which dies where it is told to.

It answers every line of JSON on stdin by one on stdout: a job by the child's process id, {"wait": id} by the
child's exit status (negative: the signal that ended it).
"""

import errno
import gc
import itertools
import json
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from quadnas import cli
from quadnas.errors import QuadnasError
from quadnas.report import page, progress, terminal  # noqa: F401 (the command line imports them when it runs)
from quadnas.run.events import Event
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.search import loop
from quadnas.search.settings import SearchSettings
from quadnas.search.work import Work, prepare
from quadnas.training import standalone

PACKAGE = Path(cli.__file__).parent
DIED = 9
OPERATIONS = ("write", "fsync", "replace", "unlink", "truncate")


class Fuse:
    """Counts the operations that change what lies on disk, and acts on number ``at`` (from 0) of them.

    ``kill``: the process dies before it; ``torn``: a write gets half of its bytes out, and the process dies;
    ``full``: from there on the disk takes nothing more. ``trace`` collects what the operations were: name, file
    (digits masked) and the lines of quadnas that asked for it.
    """

    def __init__(self, at: int, effect: str, trace: list[str] | None) -> None:
        self.left, self.effect, self.trace = at, effect, trace
        self.real = {name: getattr(os, name) for name in OPERATIONS}

    def install(self) -> None:
        for name in OPERATIONS:
            setattr(os, name, self._wrapped(name))

    def _wrapped(self, name: str) -> Callable[..., Any]:
        def operation(*args: Any, **keywords: Any) -> Any:
            if self.trace is not None:
                self.trace.append(_description(name, args))
            if self.left <= 0 and self.effect == "full" and name in {"write", "fsync"}:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self.left == 0 and self.effect != "full":
                if self.effect == "torn":
                    self.real["write"](args[0], args[1][: len(args[1]) // 2])
                os._exit(DIED)
            self.left -= 1
            # a kill leaves the page cache alone, so a real fsync would only cost time
            return None if name == "fsync" else self.real[name](*args, **keywords)

        return operation


def _description(name: str, args: tuple[Any, ...]) -> str:
    path = Path(f"/proc/self/fd/{args[0]}").readlink() if isinstance(args[0], int) else Path(args[-1])
    lines = []
    frame = sys._getframe(2)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(PACKAGE):
            lines.append(f"{file.stem}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return f"{name} {re.sub('[0-9]+', '#', path.name)} {' '.join(lines)}"


@cache
def prepared(settings: str) -> Work:
    """Loaded once, before the fork, and searched once: torch imports a second's worth of modules late."""
    work = prepare(SearchSettings.model_validate_json(settings))
    with TemporaryDirectory() as folder, RunFolder.create(Path(folder, "run"), {}) as run:
        loop.search(work, run, lambda _: None, StopFlag())
    gc.freeze()
    return work


def opened(job: dict[str, Any]) -> RunFolder:
    path = Path(job["run"])
    if (path / "run.json").exists():
        return RunFolder.open(path)
    return RunFolder.create(path, job["settings"])


def perform(job: dict[str, Any]) -> None:
    if job["kind"] == "cli":
        sys.argv = ["quadnas", *job["argv"]]
        cli.main()
        return
    stop = StopFlag()

    def observe(event: Event) -> None:
        if [getattr(event, "phase", type(event).__name__), getattr(event, "step", None)] == job.get("stop"):
            stop.signal = signal.SIGTERM

    clock = itertools.count().__next__  # it ticks once for every look at it
    with opened(job) as folder:
        if job["kind"] == "search":
            loop.search(prepared(json.dumps(job["settings"])), folder, observe, stop, clock)
        else:
            standalone.train_network(folder, observe, stop, clock)


def live(job: dict[str, Any]) -> int:
    """The child's whole life; returns its exit status."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    trace: list[str] | None = [] if "trace" in job else None
    Fuse(job.get("at", 1 << 40), job.get("effect", "kill"), trace).install()
    if "free_bytes" in job:
        usage = shutil._ntuple_diskusage(1 << 40, 1 << 40, job["free_bytes"])
        shutil.disk_usage = lambda path: usage
    try:
        perform(job)
    except QuadnasError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if "trace" in job:
            Path(job["trace"]).write_text(json.dumps(trace))
    return 0


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            answer = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
        else:
            if job["kind"] == "search":
                prepared(json.dumps(job["settings"]))
            answer = os.fork()
            if answer == 0:
                os._exit(live(job))
        print(answer, flush=True)


if __name__ == "__main__":
    main()
