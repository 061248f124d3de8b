"""The run folder: everything of a run that must survive a kill, with one writer at a time."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from quadnas.errors import ConfigError, DataError, MachineError
from quadnas.run.atomic import TEMPORARY_SUFFIX, commit_bytes, disk_errors, sync_folder
from quadnas.run.checkpoint import (
    FILE_NAME,
    Checkpoint,
    load_checkpoint,
    manifest_path,
    numbers,
    save_checkpoint,
    tensors_path,
)
from quadnas.run.journal import Journal
from quadnas.run.lock import Lock
from quadnas.run.sealed import encode, seal, unseal

FORMAT = "quadnas-run/1"
_KEPT = 2
_SETTINGS, _JOURNAL, _LOCK = "run.json", "journal.jsonl", "lock"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SPARE_BYTES = 1 << 20


class RunFolder:
    """A run on disk; ``with run_folder:`` takes the lock, which every write but ``create`` needs.

    Reading (``settings``, ``latest``, ``journal.read``) needs no lock. However a process dies, the
    folder then stands as of its last commit.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings = settings
        self.journal = Journal(path / _JOURNAL)
        self._lock = Lock(path / _LOCK)

    @classmethod
    def create(cls, path: Path, settings: Mapping[str, Any]) -> Self:
        """Start a run in a new or empty folder and write its ``settings``, which never change afterwards.

        Raises ConfigError if the folder holds a run or anything else, MachineError, TypeError or ValueError
        for settings that are not JSON.
        """
        sealed = seal({"format": FORMAT, "settings": dict(settings)})
        with disk_errors(path):
            _refuse_occupied(path)
            path.mkdir(parents=True, exist_ok=True)
            sync_folder(path.parent)
        lock = Lock(path / _LOCK)
        lock.acquire()
        try:
            _refuse_occupied(path)  # another process may have been faster
            commit_bytes(path / _SETTINGS, sealed)
        finally:
            lock.release()
        return cls.open(path)

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether a run was started there."""
        return (path / _SETTINGS).exists()

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing run; raises ConfigError if ``path`` holds none, DataError if it is corrupt."""
        file = path / _SETTINGS
        try:
            body = unseal(file.read_bytes())
        except ValueError as error:
            raise DataError(
                f"{file} is corrupt: {error}; restore it from a copy, or start a new run"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"{path} is not a run folder ({_SETTINGS}: {error.strerror}); give the folder "
                "that a search wrote, for example runs/NAME"
            ) from None
        if body["format"] != FORMAT:
            raise DataError(f"{file} has the format {body['format']!r}; this version reads {FORMAT!r}")
        return cls(path, body["settings"])

    @property
    def command(self) -> str:
        """Which command of quadnas wrote it and goes on with it: search, train or compare."""
        return "compare" if "kind" in self.settings else "train" if "model" in self.settings else "search"

    def __enter__(self) -> Self:
        """Take the lock and clear what a killed writer left half-done; raises MachineError if it is taken."""
        self._lock.acquire()
        try:
            self._remove_debris(numbers(self.path))
            self.journal.repair()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def commit(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any], *, step: int) -> None:
        """Make the run durable as it is now: ``tensors`` (distinct ones), ``state``, the journal so far.

        Either all of it becomes the latest checkpoint or none. The last two are kept. Raises MachineError
        (disk), TypeError or ValueError (a state that is not JSON, NaN, an unknown dtype).
        """
        self._require_lock()
        self._require_space(sum(tensor.nbytes for tensor in tensors.values()) + len(encode(state)))
        existing = numbers(self.path)
        checkpoint = Checkpoint(
            number=max(existing, default=0) + 1,
            step=step,
            journal_bytes=self.journal.sync(),
            tensors=dict(tensors),
            state=dict(state),
        )
        save_checkpoint(self.path, checkpoint)
        self._remove_debris([*existing, checkpoint.number][-_KEPT:])

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is intact; None before the first commit.

        Its ``notice`` names newer ones that are corrupt. Raises DataError if there are only corrupt ones.
        """
        problems: list[str] = []
        for number in reversed(numbers(self.path)):
            try:
                checkpoint = load_checkpoint(self.path, number)
                if self.journal.position < checkpoint.journal_bytes:
                    raise ValueError(f"{_JOURNAL} has lost events that checkpoint {number} counts on")
            except ValueError as error:
                problems.append(str(error))
                continue
            skipped = f"fell back to checkpoint {number} (step {checkpoint.step}): {'; '.join(problems)}"
            return replace(checkpoint, notice=skipped if problems else "")
        if problems:
            raise DataError(
                f"{self.path} has no intact checkpoint: {'; '.join(problems)}; "
                "restore the files from a copy, or start a new run with another --out"
            )
        return None

    def rewind(self, checkpoint: Checkpoint | None) -> None:
        """Go back to ``checkpoint`` (None: the very start): forget newer checkpoints and the events after it.

        Call it with ``latest()`` before going on, so that no step stands twice in the journal.
        Raises DataError if the journal is shorter than the checkpoint knows it, MachineError.
        """
        self._require_lock()
        number = checkpoint.number if checkpoint else 0
        self._remove_debris([kept for kept in numbers(self.path) if kept <= number][-_KEPT:])
        with disk_errors(self.path):
            sync_folder(self.path)  # a newer checkpoint must not come back to a shortened journal
        self.journal.truncate(checkpoint.journal_bytes if checkpoint else 0)

    def write(self, name: str, data: bytes | str) -> Path:
        """Commit any other file of the run (text as UTF-8) and return its path; raises MachineError.

        Raises ValueError unless ``name`` is a plain file name (letters, digits, ``_ . -``) that is not the
        run folder's own.
        """
        self._require_lock()
        own = name in {_SETTINGS, _JOURNAL, _LOCK} or FILE_NAME.fullmatch(name)
        if own or not _PLAIN_NAME.fullmatch(name):
            raise ValueError(f"a file of a run has a plain name of letters, digits, _ . -, not {name!r}")
        commit_bytes(self.path / name, data.encode() if isinstance(data, str) else data)
        return self.path / name

    def _require_lock(self) -> None:
        if not self._lock.held:
            raise RuntimeError(
                f"{self.path} is written inside `with run_folder:` alone, which holds its lock"
            )

    def _require_space(self, needed: int) -> None:
        with disk_errors(self.path):
            free = shutil.disk_usage(self.path).free
        if free < needed + _SPARE_BYTES:
            raise MachineError(
                f"a checkpoint of {self.path} needs {(needed + _SPARE_BYTES) / 1e6:.1f} MB, and the disk has "
                f"{free / 1e6:.1f} MB free; free some space, then go on from the last commit with --resume"
            )

    def _remove_debris(self, kept: list[int]) -> None:
        """Remove temporary files, and the checkpoints (manifests first) but for the ``kept`` numbers."""
        wanted = {name(self.path, number) for number in kept for name in (manifest_path, tensors_path)}
        with disk_errors(self.path):
            for path in sorted(self.path.iterdir()):
                checkpoint_file = FILE_NAME.fullmatch(path.name) and path not in wanted
                if checkpoint_file or (path.name.startswith(".") and path.suffix == TEMPORARY_SUFFIX):
                    path.unlink()


def _refuse_occupied(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise ConfigError(f"a run lives in a folder, and {path} is a file; choose another --out")
    names = {entry.name for entry in path.iterdir()}
    if _SETTINGS in names:
        raise ConfigError(f"{path} already holds a run; go on with --resume {path}, or choose another --out")
    foreign = sorted(n for n in names if n != _LOCK and not n.endswith(TEMPORARY_SUFFIX))
    if foreign:
        raise ConfigError(
            f"a new run needs a new or empty folder, and {path} holds {', '.join(foreign[:3])}; "
            "choose another --out"
        )
