"""Units as tasks of Ray: on the cluster that RAY_ADDRESS names, else on one that is started here for the run."""

import signal
import sys
from contextlib import ExitStack, redirect_stdout, suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from quadnas.compare.dispatch import Dispatch, Task
from quadnas.compare.executor import EXECUTORS, Options
from quadnas.compare.handover import Call
from quadnas.compare.worker import measure_unit
from quadnas.errors import MachineError
from quadnas.extras import optional

_GB = 10**9
_WORDS = 300


class RayOptions(Options):
    """Of every task: ``cpus`` (also its threads), ``gpus``, ``memory_gb`` that must be free."""

    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    memory_gb: Annotated[float, Field(gt=0, strict=False)] | None = None


class RayTask(Task):
    """A task that is not tried again: a unit that dies is reported."""

    def __init__(self, ray: Any, result: Any) -> None:
        self._ray = ray
        self._result = result

    def ended(self) -> bool:
        """See ``Task``."""
        done, _ = self._ray.wait([self._result], timeout=0)
        return bool(done)

    def stop(self) -> None:
        """A SIGINT, which the worker takes for a request."""
        self._ray.cancel(self._result, force=False)

    def kill(self) -> None:
        """End its process."""
        self._ray.cancel(self._result, force=True)

    def reason(self) -> str:
        """Ray's own."""
        try:
            self._ray.get(self._result)
        except self._ray.exceptions.RayError as error:
            return f"its Ray task failed: {' '.join(str(error).split())[:_WORDS]}"
        return "its Ray task left no answer; do all nodes see the run folder under the same path?"


@EXECUTORS.register("ray")
class Ray(Dispatch):
    """One task for every unit, ``workers`` of them at once; all nodes see the run folder under the same path."""

    options: RayOptions
    options_type: ClassVar[type[Options]] = RayOptions

    def __init__(self, workers: int | None, options: Options) -> None:
        super().__init__(workers, options)
        self._ray = optional("ray", "ray")
        self._remote: Any = None
        self._redirected = ExitStack()

    def open(self, run: Path) -> None:
        """Connect. Ray's handler of SIGTERM, which would end this process at once, is put aside again; what Ray
        prints goes to stderr, for stdout is the command's answer.
        """
        self._redirected.enter_context(redirect_stdout(sys.stderr))
        handler = signal.getsignal(signal.SIGTERM)
        try:
            self._ray.init(log_to_driver=False, include_dashboard=False, logging_level="ERROR")
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise MachineError(f"cannot reach Ray: {' '.join(str(error).split())[:_WORDS]}") from None
        finally:
            with suppress(ValueError):
                signal.signal(signal.SIGTERM, handler)
        memory = {} if self.options.memory_gb is None else {"memory": int(self.options.memory_gb * _GB)}
        self._remote = self._ray.remote(measure_unit).options(
            num_cpus=self.options.cpus, num_gpus=self.options.gpus, max_retries=0, **memory
        )

    def close(self) -> None:
        """Disconnect; a cluster that was started for the run ends."""
        self._ray.shutdown()
        self._redirected.close()

    def start(self, call: Call) -> Task:
        """Put it in Ray's queue."""
        return RayTask(self._ray, self._remote.remote(str(call)))

    def threads(self) -> int:
        """As many as a task has cores."""
        return self.options.cpus

    def notice(self) -> str:
        """See ``Dispatch``."""
        at_once = f", {self.workers} at once" if self.workers else ""
        return (
            f"a task of Ray for every unit{at_once} (cores: {self.options.cpus}, GPUs: {self.options.gpus})"
        )
