"""What happened in a run, one JSON object per line, in order."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quadnas.errors import DataError
from quadnas.run.atomic import disk_errors, write_all
from quadnas.run.sealed import decode, encode


class Journal:
    """An append-only file of events; readable by anyone at any time, written by the holder of the run's lock.

    An event reaches the kernel with ``append`` (it survives kill -9) and the disk with ``sync``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, event: Mapping[str, Any]) -> None:
        """Add one event. Raises ValueError for NaN, TypeError for what JSON cannot hold, MachineError."""
        line = encode(event) + b"\n"
        with disk_errors(self._path):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                size = os.fstat(descriptor).st_size
                try:
                    write_all(descriptor, line)
                except OSError:
                    os.ftruncate(descriptor, size)
                    raise
            finally:
                os.close(descriptor)

    def read(self) -> list[dict[str, Any]]:
        """All events in order, without a half-written last one.

        Raises DataError for a corrupt line before that, or a file that cannot be read.
        """
        data = self._bytes()
        events = []
        for number, line in enumerate(data[: _intact(data)].split(b"\n")[:-1], 1):
            try:
                events.append(decode(line))
            except ValueError as error:
                raise DataError(
                    f"{self._path}: line {number} is corrupt ({error}); restore the file from a copy"
                ) from None
        return events

    @property
    def position(self) -> int:
        """The length of the journal in bytes."""
        return self._path.stat().st_size if self._path.exists() else 0

    def sync(self) -> int:
        """Make every event durable and return the position; raises MachineError."""
        with disk_errors(self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                os.fsync(descriptor)
                return os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)

    def truncate(self, position: int) -> None:
        """Forget the events after ``position`` (bytes, as ``sync`` returned it).

        Raises DataError if the journal is shorter than that and so has lost events, MachineError.
        """
        if self.position < position:
            raise DataError(
                f"{self._path} has {self.position} bytes, of {position} that were committed; "
                "restore the file from a copy"
            )
        if self.position > position:
            with disk_errors(self._path):
                os.truncate(self._path, position)

    def repair(self) -> None:
        """Drop a torn tail: a last line that was not written to its end. Raises MachineError."""
        self.truncate(_intact(self._bytes()))

    def _bytes(self) -> bytes:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise DataError(f"cannot read {self._path}: {error.strerror}; check its permissions") from None


def _intact(data: bytes) -> int:
    """The length of ``data`` without a last line that lacks its newline or is not an event."""
    end = data.rfind(b"\n") + 1
    start = data.rfind(b"\n", 0, max(end - 1, 0)) + 1
    try:
        decode(data[start:end])
    except ValueError:
        return start
    return end
