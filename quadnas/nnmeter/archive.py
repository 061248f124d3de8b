"""The forests of a folder or a zip file, read in place: nothing of an archive is ever unpacked by its names."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from quadnas.errors import ConfigError, DataError

MAX_FILE_BYTES = 4 << 30
"""Twice nn-Meter's largest forest."""
MAX_FILES = 1000
RULES = "fusion_rules.json"
_MAX_RULE_BYTES = 1 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One file: its name for messages, its size in bytes, and how to open it."""

    source: str
    size: int
    open: Callable[[], IO[bytes]]

    def sha256(self) -> str:
        """The digest of its content; raises DataError if it cannot be read."""
        digest = hashlib.sha256()
        with reading(self), self.open() as stream:
            while piece := stream.read(_CHUNK):
                digest.update(piece)
        return digest.hexdigest()


@contextmanager
def reading(member: Member) -> Iterator[None]:
    """Turn whatever a damaged file or archive raises into a DataError that names it."""
    try:
        yield
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, ValueError) as error:
        raise DataError(f"cannot read {member.source}: {error}; get the file again") from None


@contextmanager
def members(path: Path) -> Iterator[dict[str, Member]]:
    """The files of a folder (not of folders in it) or of a zip file, by name without their folder.

    Only ``.pkl`` files and ``fusion_rules.json`` count. Raises ConfigError if there is no such folder or file,
    DataError for a damaged archive, a name that leaves it, one that stands twice, and a file beyond the cap.
    """
    if path.is_dir():
        yield _checked(_in_folder(path))
        return
    if not path.is_file():
        raise ConfigError(f"no folder or zip file {path}; give one with nn-Meter's .pkl files")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"{path} is not an intact zip file: {error}; get it again") from None
    with archive:
        yield _checked(_archived(path, archive))


def fusion_pairs(member: Member) -> tuple[tuple[str, str], ...]:
    """The pairs of operators that nn-Meter's ``fusion_rules.json`` lets fuse; raises DataError.

    A rule ``BF_a_b_c`` that a device obeys fuses c behind a-b. ReLU6 counts as ReLU, as in nn-Meter.
    """
    with reading(member), member.open() as stream:
        text = stream.read(_MAX_RULE_BYTES)
    try:
        rules = json.loads(text)
        obeyed = [
            name.split("_")[1:] for name, rule in rules.items() if name.startswith("BF_") and rule["obey"]
        ]
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{member.source} is not a file of nn-Meter's fusion rules: {error}") from None
    pairs = [("-".join(ops[:-1]), ops[-1]) for ops in obeyed if len(ops) > 1 and all(ops)]
    return tuple(dict.fromkeys(p for first, last in pairs for p in _with_relu6(first, last)))


def _with_relu6(first: str, last: str) -> Iterator[tuple[str, str]]:
    yield first, last
    if last == "relu":
        yield first, "relu6"


def _in_folder(path: Path) -> dict[str, Member]:
    try:
        return {p.name: Member(str(p), p.stat().st_size, _opener(p)) for p in path.iterdir() if p.is_file()}
    except OSError as error:
        raise ConfigError(f"cannot read the folder {path}: {error.strerror}; check its permissions") from None


def _archived(path: Path, archive: zipfile.ZipFile) -> dict[str, Member]:
    files: dict[str, Member] = {}
    for info in archive.infolist():
        inside = PurePosixPath(info.filename)
        if inside.is_absolute() or ".." in inside.parts or "\\" in info.filename or ":" in info.filename:
            raise DataError(
                f"{path} names {info.filename[:80]!r}, a path outside itself: nothing of it was used"
            )
        if info.is_dir() or "__MACOSX" in inside.parts:
            continue
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{path}: {info.filename[:80]!r} is packed in a way that nn-Meter's archives are not"
            )
        if inside.name in files:
            raise DataError(f"{path} holds {inside.name!r} twice: nothing of it was used")
        files[inside.name] = Member(
            f"{path}:{info.filename}", info.file_size, _archived_opener(archive, info)
        )
    return files


def _checked(files: Mapping[str, Member]) -> dict[str, Member]:
    wanted = {name: file for name, file in files.items() if name.endswith(".pkl") or name == RULES}
    if len(wanted) > MAX_FILES:
        raise DataError(f"{len(wanted)} files, where nn-Meter's predictors have 16: nothing was used")
    for file in wanted.values():
        if file.size > MAX_FILE_BYTES:
            raise DataError(f"{file.source} is larger than {MAX_FILE_BYTES} bytes, which no forest needs")
    return wanted


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: path.open("rb")


def _archived_opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(info)
