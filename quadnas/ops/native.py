"""C files of the package, compiled for this very machine on first use and kept in $QUADNAS_HOME."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from quadnas.errors import MachineError
from quadnas.resources import own_home
from quadnas.run.atomic import commit_bytes

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-std=gnu11", "-ffp-contract=fast", "-fPIC", "-shared")
TARGETS = ("-march=native", "-mcpu=native")
"""The first that the compiler takes: some spell it so on ARM."""
TIMEOUT_S = 120


def switched_off() -> bool:
    """Whether the user wants no native code: $QUADNAS_NATIVE is 0."""
    return os.environ.get("QUADNAS_NATIVE") == "0"


def load_native(source: Path) -> ctypes.CDLL:
    """The C file ``source`` as a library: from the cache, else compiled and put there.

    The file in the cache bears the SHA-256 of its content as its name and belongs to the user, or it is compiled
    anew; its folder stands for source, flags, compiler, processor. Several processes may do this at once. Raises
    MachineError if there is no C compiler, or it fails.
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise MachineError(f"no C compiler ({', '.join(COMPILERS)}) on the PATH")
    identity = (source.read_text(), *FLAGS, *TARGETS, _run(compiler, "--version"), _processor())
    key = hashlib.sha256("\0".join(identity).encode()).hexdigest()
    folder = own_home() / "native" / f"{source.stem}-{key[:16]}"
    for path in sorted(folder.glob("*.so")):
        if path.stat().st_uid == os.getuid() and path.stem == hashlib.sha256(path.read_bytes()).hexdigest():
            return ctypes.CDLL(str(path))
    with TemporaryDirectory(prefix="quadnas-") as temporary:
        built = Path(temporary, f"{source.stem}.so")
        _compile(compiler, source, built)
        with suppress(MachineError, OSError):  # a full or read-only disk: compiled again next time
            built = _kept(built, folder)
        return ctypes.CDLL(str(built))


def _kept(built: Path, folder: Path) -> Path:
    data = built.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(data).hexdigest()}.so"
    commit_bytes(path, data)
    return path


def _compile(compiler: str, source: Path, target: Path) -> None:
    refusals = []
    for machine in TARGETS:
        try:
            _run(compiler, *FLAGS, machine, str(source), "-o", str(target))
            return
        except MachineError as error:
            refusals.append(error)
    raise refusals[0]


def _run(*command: str) -> str:
    """The output of a compiler, in a session of its own: Ctrl-C ends the run after this step, not the compiler."""
    try:
        done = subprocess.run(  # noqa: S603 (an absolute path, and no shell)
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, start_new_session=True,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        raise MachineError(f"{command[0]} failed: {' '.join(done.stderr.split())[:300]}")
    return done.stdout


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    marks = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(marks)}))
