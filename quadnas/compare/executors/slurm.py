"""Units as jobs of SLURM, submitted with submitit from a node that has sbatch; all nodes see the run folder."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from quadnas.compare.dispatch import Dispatch, Task, last_words
from quadnas.compare.executor import EXECUTORS, Options
from quadnas.compare.handover import Call
from quadnas.compare.worker import measure_unit
from quadnas.errors import MachineError
from quadnas.extras import optional

CLUSTER = "slurm"
"""Submitit's name of the engine; its "local" runs the same jobs without SLURM."""


class SlurmOptions(Options):
    """Of every job: ``cpus`` (also its threads), ``gpus``, ``memory_gb`` and ``hours`` at most, ``partition``.

    Whatever else sbatch knows, it takes from its own environment variables, such as SBATCH_ACCOUNT.
    """

    partition: str | None = None
    hours: Annotated[float, Field(gt=0, strict=False)] = 24.0
    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    memory_gb: Annotated[float, Field(gt=0, strict=False)] | None = None


class SlurmTask(Task):
    """A job of submitit."""

    def __init__(self, job: Any) -> None:
        self._job = job
        self._cancelled = False

    def ended(self) -> bool:
        """See ``Task``; SLURM itself is asked about once a minute."""
        return bool(self._job.done())

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after SLURM's KillWait."""
        if not self._cancelled:
            self._cancelled = True
            self._job.cancel(check=False)

    def kill(self) -> None:
        """The same: SLURM sees to the rest."""
        self.stop()

    def reason(self) -> str:
        """SLURM's word for it, such as TIMEOUT or OUT_OF_MEMORY."""
        job = self._job
        return f"its job {job.job_id} ended as {job.state}{last_words(Path(job.paths.stderr))}"


@EXECUTORS.register("slurm")
class Slurm(Dispatch):
    """One job for every unit, ``workers`` of them at once."""

    options: SlurmOptions
    options_type: ClassVar[type[Options]] = SlurmOptions
    poll_seconds = 0.5

    def __init__(self, workers: int | None, options: Options) -> None:
        super().__init__(workers, options)
        self._submitit = optional("submitit", "slurm")
        self._executor: Any = None
        if CLUSTER == "slurm" and self._submitit.SlurmExecutor.affinity() < 0:
            raise MachineError(
                "this machine has no SLURM (no srun); start the command on a login node of the cluster, or "
                "without --cluster"
            )

    def open(self, run: Path) -> None:
        """What submitit writes lies in the run folder."""
        options = self.options
        self._executor = self._submitit.AutoExecutor(folder=run / "slurm", cluster=CLUSTER)
        asked = {"mem_gb": options.memory_gb, "slurm_partition": options.partition}
        self._executor.update_parameters(
            name="quadnas",
            timeout_min=max(1, round(60 * options.hours)),
            cpus_per_task=options.cpus,
            gpus_per_node=options.gpus,
            **{key: value for key, value in asked.items() if value is not None},
        )

    def start(self, call: Call) -> Task:
        """Submit a job; raises MachineError with what sbatch says."""
        try:
            return SlurmTask(self._executor.submit(measure_unit, str(call)))
        except (self._submitit.core.utils.FailedJobError, OSError) as error:
            raise MachineError(f"cannot be submitted: {' '.join(str(error).split())}") from None

    def threads(self) -> int:
        """As many as a job has cores."""
        return self.options.cpus

    def notice(self) -> str:
        """See ``Dispatch``."""
        at_once = f", {self.workers} at once" if self.workers else ""
        options = self.options
        return (
            f"a job of SLURM for every unit{at_once} (cores: {options.cpus}, GPUs: {options.gpus}, hours: "
            f"{options.hours:g})"
        )
