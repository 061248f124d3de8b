"""Tables of finished work, one line of JSON each, added by several processes at a time."""

import fcntl
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import Field

from quadnas.config import Settings, validated
from quadnas.data.order import stable_seed
from quadnas.errors import ConfigError, DataError
from quadnas.run.atomic import disk_errors
from quadnas.run.journal import Journal

Key = tuple[str | int | float, ...]
"""What tells a piece of work apart from all others in its table."""


class Entry(Settings):
    """A line of a table."""

    @property
    @abstractmethod
    def key(self) -> Key:
        """Which piece of work it is the result of."""


class Row(Entry):
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

    @property
    def key(self) -> Key:
        """Network and seed."""
        return self.architecture, self.seed


EntryType = TypeVar("EntryType", bound=Entry)


class SharedTable(Generic[EntryType]):
    """The file ``path``: first the header, then one entry per piece of work.

    It is written by who gives a header; ``path``.lock beside it may be removed when nobody works. Raises
    ConfigError if the file was begun with another header, DataError if it is damaged.
    """

    entry: type[EntryType]
    entries: ClassVar[str]
    """What they are the results of, in a word."""
    command: ClassVar[str]
    """Which command fills it."""

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
                f"{self._path} holds {self.entries} of another kind ({', '.join(changed)} differ): a table has "
                "one kind; give another --out, or restore what has changed"
            )

    @property
    def header(self) -> dict[str, Any]:
        """What its entries have in common; raises DataError if the table is empty."""
        lines = self._journal.read()
        if not lines:
            raise DataError(
                f"{self._path} holds no {self.entries}; make some with python -m benchmarks.ground_truth "
                f"{self.command}"
            )
        return lines[0]

    def rows(self) -> list[EntryType]:
        """All entries in the order in which their work ended."""
        try:
            return [validated(line, self.entry, str(self._path)) for line in self._journal.read()[1:]]
        except ConfigError as error:
            raise DataError(f"a line is none of its {self.entries}: {error}; restore it") from None

    def append(self, row: EntryType) -> None:
        """Add an entry durably."""
        with self._writing():
            self._journal.repair()
            self._journal.append(row.model_dump(mode="json"))
            self._journal.sync()

    def add_once(self, key: Key, make: Callable[[], EntryType]) -> EntryType | None:
        """Do a piece of work that nobody else does, and add it; None if somebody does or did."""
        with self.claimed(*key) as free:
            if not free or any(row.key == key for row in self.rows()):
                return None
            row = make()
            self.append(row)
            return row

    @contextmanager
    def claimed(self, *key: str | float) -> Iterator[bool]:
        """Whether no other process has claimed this piece of work: inside, it is this process's alone.

        A claim ends with its process. One that was free may have been done before: look at ``rows`` then.
        """
        byte = 1 + (stable_seed(*map(str, key)) >> 1)
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


class TruthTable(SharedTable[Row]):
    """The trainings of a ground truth."""

    entry = Row
    entries, command = "trainings", "train"
