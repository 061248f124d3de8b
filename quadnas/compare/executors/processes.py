"""Units in processes of their own beside this one, which share its cores and its GPUs."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import torch

from quadnas.compare.dispatch import Dispatch, Task, last_words
from quadnas.compare.executor import EXECUTORS, PROCESSES, Options
from quadnas.compare.handover import Call
from quadnas.run.atomic import disk_errors

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ProcessTask(Task):
    """A process that leads a group of its own: a key pressed in the terminal reaches the main process alone."""

    def __init__(self, call: Call, gpu: str) -> None:
        self.gpu = gpu
        environment = {**os.environ, **dict.fromkeys(_THREADS, str(call.threads))}
        if gpu:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        self._log = call.file(".log")
        with disk_errors(self._log), self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 (this Python, and no shell)
                [sys.executable, "-m", "quadnas.compare.worker", str(call)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def ended(self) -> bool:
        """See ``Task``."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL, also to the processes that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def reason(self) -> str:
        """The signal or the exit code, and the last line that it wrote."""
        code = self._process.returncode
        how = f"ended with the exit code {code}"
        if code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += ", as by a machine that runs out of memory"
        return f"its process {how}{last_words(self._log)}"


@EXECUTORS.register(PROCESSES)
class Processes(Dispatch):
    """``workers`` processes at once; each unit has a fresh one, so that one that dies takes no other with it."""

    def __init__(self, workers: int | None, options: Options) -> None:
        super().__init__(workers or 1, options)
        self._tasks: list[ProcessTask] = []

    def start(self, call: Call) -> Task:
        """On the GPU with the fewest processes, if there are any."""
        self._tasks = [task for task in self._tasks if not task.ended()]
        busy = [task.gpu for task in self._tasks]
        task = ProcessTask(replace(call, parent=os.getpid()), min(_gpus(), key=busy.count, default=""))
        self._tasks.append(task)
        return task

    def threads(self) -> int:
        """Those of this process, divided."""
        return max(1, torch.get_num_threads() // (self.workers or 1))

    def notice(self) -> str:
        """See ``Dispatch``."""
        threads, gpus = self.threads(), len(_gpus())
        shared = f", {gpus} GPU{'s' * (gpus > 1)} among them" if gpus else ""
        return f"{self.workers} processes side by side, {threads} thread{'s' * (threads > 1)} each{shared}"


def _gpus() -> list[str]:
    """The names under which CUDA shows this process its GPUs."""
    number = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:number] if visible else [str(index) for index in range(number)]
