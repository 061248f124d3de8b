"""The one way a file appears: whole and durable, or not at all."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quadnas.errors import MachineError

TEMPORARY_SUFFIX = ".tmp"


def commit_bytes(path: Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Put ``data``, whole or in pieces, at ``path`` in one durable step; an existing file is replaced.

    On any error ``path`` is as it was before. Raises MachineError if the disk refuses (full, read-only, ...).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    with disk_errors(path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            try:
                for piece in [data] if isinstance(data, bytes) else data:
                    write_all(descriptor, piece)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte of ``data`` to an open file; one ``os.write`` may take only a part. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_folder(path: Path) -> None:
    """Make the names in the folder ``path`` durable: files created, replaced, removed. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a MachineError that names ``path`` and the next step."""
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"cannot write {path}: {error.strerror or error}; free disk space or check that the folder "
            "may be written, then go on: a run continues from its last commit with --resume"
        ) from error
