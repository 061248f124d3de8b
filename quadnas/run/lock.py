"""One writer per run folder: an advisory lock that the kernel drops with the process."""

import fcntl
import os
from pathlib import Path

from quadnas.errors import MachineError
from quadnas.run.atomic import disk_errors


class Lock:
    """Exclusive hold on the file ``path``, from ``acquire`` to ``release`` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    @property
    def held(self) -> bool:
        """Whether this process, not a parent it was forked from, holds the lock through this object."""
        return self in _held

    def acquire(self, *, wait: bool = False) -> None:
        """Take the lock at once or raise MachineError naming the process that holds it; or ``wait`` for it."""
        with disk_errors(self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
            except BlockingIOError:
                holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                os.close(descriptor)
                raise MachineError(
                    f"a run folder has one writer at a time, and {self._path.parent} is in use by process "
                    f"{holder}; wait for it, stop it, or choose another folder with --out"
                ) from None
            except BaseException:
                os.close(descriptor)
                raise
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Give the lock back; the file stays, since removing it would let two processes hold two files."""
        if self.held:
            _held.remove(self)
            os.close(self._descriptor)


_held: set[Lock] = set()


def _let_go_in_child() -> None:
    # A forked data worker shares the open file: it would hold the lock on after its parent was killed.
    for lock in _held:
        os.close(lock._descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
