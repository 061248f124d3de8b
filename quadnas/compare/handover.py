"""What the main process and its workers leave for each other in the folder ``arms`` of a run."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from quadnas.errors import (
    ConfigError,
    CoverageError,
    DataError,
    LimitError,
    MachineError,
    QuadnasError,
)
from quadnas.run.atomic import TEMPORARY_SUFFIX, commit_bytes, disk_errors
from quadnas.run.lock import Lock
from quadnas.run.sealed import seal, unseal

_ERRORS = {kind.__name__: kind for kind in (ConfigError, CoverageError, DataError, LimitError, MachineError)}
_WAIT_SECONDS = 0.2
GRACE_SECONDS = 6.0
"""How long a unit that is asked to stop may take to commit before its process is ended."""


@dataclass(frozen=True, slots=True)
class Call:
    """A unit that a worker is to measure, in plain values.

    ``run`` and ``cwd`` are absolute; ``owner``: the token of the main process; ``inputs``: digests that the
    worker's own must equal; ``parent``: the process that the worker must not outlive, 0 for none.
    """

    run: str
    cwd: str
    unit: str
    owner: str
    inputs: dict[str, str]
    threads: int
    parent: int = 0

    def __str__(self) -> str:
        """As JSON, which ``parsed`` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def parsed(cls, text: str) -> "Call":
        """The call that was written as JSON."""
        return cls(**json.loads(text))

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the answer any more: another main process took over, or the parent is gone."""
        return owner_of(Path(self.run)) != self.owner or self.parent not in (0, os.getppid())

    def file(self, suffix: str) -> Path:
        """``.json``: the answer, ``.lock``: held by the worker, ``.log``: what it writes to stderr."""
        return Path(self.run, "arms", self.unit + suffix)


def answer_file(run: Path, unit: str) -> Path:
    """Where a worker leaves its answer."""
    return run / "arms" / f"{unit}.json"


@dataclass(frozen=True, slots=True)
class Left:
    """What a worker left: a record or an error; neither if it was asked to stop."""

    inputs: dict[str, str]
    machine: str
    record: dict[str, Any] | None = None
    error: QuadnasError | None = None

    def write(self, path: Path) -> None:
        """Commit it to ``path``; raises MachineError."""
        told = [type(self.error).__name__, str(self.error)] if self.error else None
        plain = {"inputs": self.inputs, "machine": self.machine, "record": self.record, "error": told}
        commit_bytes(path, seal(plain))

    @classmethod
    def read(cls, path: Path) -> "Left | None":
        """What stands there, if it is intact."""
        try:
            plain = unseal(path.read_bytes())
        except (OSError, ValueError):
            return None
        if told := plain.pop("error"):
            plain["error"] = _ERRORS.get(told[0], MachineError)(told[1])
        return cls(**plain)


def owner_of(run: Path) -> str:
    """The token of the main process whose workers may run, empty if there is none."""
    try:
        return (run / "arms" / "owner").read_text()
    except OSError:
        return ""


def take_over(run: Path, waiting: Callable[[Path], None]) -> None:
    """Make this process, which holds the run's lock, the one whose workers may run.

    Workers that a killed main process left see it and stop; until then ``waiting`` is called again and again with
    the lock of one of them. What they left half-written is removed.
    """
    arms = run / "arms"
    with disk_errors(arms):
        arms.mkdir(exist_ok=True)
    commit_bytes(arms / "owner", uuid4().hex.encode())
    for path in sorted(arms.glob("*.lock")):
        while not _is_free(path):
            waiting(path)
            time.sleep(_WAIT_SECONDS)
    with disk_errors(arms):
        for path in arms.glob(f".*{TEMPORARY_SUFFIX}"):
            path.unlink()


def _is_free(path: Path) -> bool:
    lock = Lock(path)
    try:
        lock.acquire()
    except MachineError:
        return False
    lock.release()
    return True
