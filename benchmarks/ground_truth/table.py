"""The table of a ground truth: one line of JSON per training, added by several processes at a time."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from quadnas.config import Settings
from quadnas.data.order import stable_seed
from quadnas.errors import ConfigError, DataError
from quadnas.run.atomic import disk_errors
from quadnas.run.journal import Journal


class Row(Settings):
    """A finished training: score on the test split, CPU seconds, and what the network costs when deployed.

    ``loss`` is the mean cross-entropy in nats, ``latency_ms`` the prediction by device.
    """

    architecture: str
    seed: int
    accuracy: float = Field(ge=0, le=1)
    loss: float
    seconds: float
    latency_ms: dict[str, float]
    macs: int
    parameters: int


class TruthTable:
    """The file ``path``: first the header, then one row per training.

    It is written by who gives a header; ``path``.lock beside it may be removed when nobody trains. Raises
    ConfigError if the file was begun with another header, DataError if it is damaged.
    """

    def __init__(self, path: Path, header: Mapping[str, Any] | None = None) -> None:
        self._journal = Journal(path)
        self._path = path
        self._lock = -1
        if header is not None:
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            with self._writing():
                self._begin(header)

    def _begin(self, header: Mapping[str, Any]) -> None:
        self._journal.repair()
        lines = self._journal.read()
        if not lines:
            self._journal.append(header)
        elif changed := sorted(
            key for key in header.keys() | lines[0].keys() if header.get(key) != lines[0].get(key)
        ):
            raise ConfigError(
                f"{self._path} holds trainings of another kind ({', '.join(changed)} differ): a table has one "
                "kind; give another --out, or restore what has changed"
            )

    @property
    def header(self) -> dict[str, Any]:
        """What its trainings have in common; raises DataError if the table is empty."""
        lines = self._journal.read()
        if not lines:
            raise DataError(
                f"{self._path} holds no trainings; make some with python -m benchmarks.ground_truth train"
            )
        return lines[0]

    def rows(self) -> list[Row]:
        """All finished trainings in the order in which they ended."""
        try:
            return [Row.model_validate(line) for line in self._journal.read()[1:]]
        except ValidationError as error:
            raise DataError(
                f"{self._path}: a line is no training ({error.errors()[0]['msg']}); restore it"
            ) from None

    def append(self, row: Row) -> None:
        """Add a finished training durably."""
        with self._writing():
            self._journal.repair()
            self._journal.append(row.model_dump())
            self._journal.sync()

    @contextmanager
    def claimed(self, architecture: str, seed: int) -> Iterator[bool]:
        """Whether no other process has claimed this training: inside, it is this process's alone.

        A claim ends with its process. One that was free may have been done before: look at ``rows`` then.
        """
        byte = 1 + (stable_seed(architecture, seed) >> 1)
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, byte)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        fcntl.lockf(self._lock, fcntl.LOCK_EX, 1, 0)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, 0)
