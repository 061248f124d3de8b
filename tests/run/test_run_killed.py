"""A run that dies at any moment resumes to exactly the bytes of a run that did not."""

import os
import random
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from quadnas.run.folder import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

Spawn = Callable[[Callable[[], None]], int]
STEPS = 4
KILLED = 9


def weights_after(step: int, size: int = 3) -> torch.Tensor:
    """The weights of the toy run in closed form: sum of the steps so far, exact in float32."""
    return torch.full((size,), step * (step + 1) / 2)


def search(path: Path, committed: Callable[[int], object], *, steps: int = STEPS, size: int = 3) -> None:
    """A toy search in the way the real one uses the folder: resume, step, journal, commit, report."""
    exists = (path / "run.json").exists()
    folder = RunFolder.open(path) if exists else RunFolder.create(path, {"seed": 7})
    with folder:
        checkpoint = folder.latest()
        folder.rewind(checkpoint)
        weights = checkpoint.tensors["weights"] if checkpoint else torch.zeros(size)
        for step in range(checkpoint.step + 1 if checkpoint else 1, steps + 1):
            weights = weights + step
            folder.journal.append({"event": "begin", "step": step})
            folder.journal.append({"event": "loss", "step": step, "loss": step / 3})
            state = {"loss": step / 3}
            folder.commit({"weights": weights, "rng": torch.arange(step).byte()}, state, step=step)
            committed(step)
        folder.journal.append({"event": "end"})
        folder.write("report.txt", f"sum {weights.sum().item()}")


def snapshot(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir() if entry.name != "lock"}


class Fuse:
    """Dies before operation number ``at`` reaches the disk, and takes with it what a power cut may take.

    ``kill``: nothing else, the kernel still has all that was written. ``torn``: the operation, if a write,
    gets half of its bytes out. ``data``: files lose what was written since their last fsync. ``names``:
    names replaced and removed since the last fsync of the folder are as before, too.
    """

    def __init__(self, at: int, mode: str, folder: Path) -> None:
        self.left, self.mode, self.folder = at, mode, folder
        self.durable_size: dict[int, int] = {}
        self.changed: list[tuple[Path, bytes | None]] = []
        self.real = {name: getattr(os, name) for name in OPERATIONS}

    def install(self) -> None:
        for name in OPERATIONS:
            setattr(os, name, self._wrapped(name))

    def _wrapped(self, name: str) -> Callable[..., Any]:
        def operation(*args: Any, **keywords: Any) -> Any:
            if self.left == 0:
                self._die(name, args)
            self.left -= 1
            if name == "write" and stat.S_ISREG(os.fstat(args[0]).st_mode):
                status = os.fstat(args[0])
                self.durable_size.setdefault(status.st_ino, status.st_size)
            elif name == "fsync":
                status = os.fstat(args[0])
                if stat.S_ISDIR(status.st_mode):
                    self.changed.clear()
                self.durable_size.pop(status.st_ino, None)
                return None  # the page cache outlives this process, so a real one would only cost time
            elif name in {"replace", "unlink"}:
                target = Path(args[-1])
                self.changed.append((target, target.read_bytes() if target.exists() else None))
            return self.real[name](*args, **keywords)

        return operation

    def _die(self, name: str, args: tuple[Any, ...]) -> None:
        if self.mode == "torn" and name == "write":
            self.real["write"](args[0], args[1][: len(args[1]) // 2])
        if self.mode in {"data", "names"}:
            for path in self.folder.iterdir():
                status = path.stat()
                if status.st_ino in self.durable_size:
                    self.real["truncate"](path, self.durable_size[status.st_ino])
        if self.mode == "names":
            for target, content in reversed(self.changed):
                with target.open("wb") as file:
                    file.write(content or b"")
                if content is None:
                    self.real["unlink"](target)
        os._exit(KILLED)


OPERATIONS = ("open", "write", "fsync", "replace", "unlink", "truncate", "ftruncate", "mkdir")


@pytest.mark.parametrize("mode", ["kill", "torn", "data", "names"])
def test_killed_at_every_operation(
    mode: str, tmp_path: Path, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    search(tmp_path / "whole", lambda _: None)
    whole = snapshot(tmp_path / "whole")
    at, status = 0, KILLED
    while status == KILLED:
        path = tmp_path / f"{at}"
        reader, writer = os.pipe()

        def dying(path: Path = path, writer: int = writer, at: int = at) -> None:
            tell = os.write
            path.mkdir()  # so that a fuse that burns at once has a folder to look at
            Fuse(at, mode, path).install()
            search(path, lambda step: tell(writer, bytes([step])))

        status = os.waitstatus_to_exitcode(os.waitpid(spawn(dying), 0)[1])
        os.close(writer)
        told = os.read(reader, STEPS)
        os.close(reader)
        assert status in {0, KILLED}
        check_commit(path, told[-1] if told else 0)
        search(path, lambda _: None)
        assert snapshot(path) == whole, f"killed at operation {at}"
        at += 1
    assert at > 20 * STEPS  # all of them were reached


def check_commit(path: Path, told: int) -> None:
    """The folder stands as of the last commit that was acknowledged, or of the one under way."""
    if not (path / "run.json").exists():
        assert told == 0
        return
    checkpoint = RunFolder.open(path).latest()
    step = checkpoint.step if checkpoint else 0
    assert told <= step <= told + 1
    if checkpoint:
        assert checkpoint.notice == ""  # a clean commit is never half there
        assert torch.equal(checkpoint.tensors["weights"], weights_after(step))
        assert checkpoint.state == {"loss": step / 3}


def test_killed_at_random_moments(tmp_path: Path, spawn: Spawn) -> None:
    path, size, moments = tmp_path / "run", 200_000, random.Random(5)
    last = 0
    for _ in range(20):
        reader, writer = os.pipe()

        def endless(writer: int = writer) -> None:
            search(path, lambda _: os.write(writer, b"."), steps=10_000, size=size)

        pid = spawn(endless)
        os.close(writer)
        os.read(reader, 1)
        time.sleep(moments.uniform(0, 0.06))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        acknowledged = 1 + len(os.read(reader, 10_000))
        os.close(reader)
        with RunFolder.open(path) as folder:
            checkpoint = folder.latest()
            assert checkpoint is not None
            assert checkpoint.notice == ""
            assert last + acknowledged <= checkpoint.step <= last + acknowledged + 1
            last = checkpoint.step
            assert torch.equal(checkpoint.tensors["weights"], weights_after(last, size))
            folder.rewind(checkpoint)
            steps = [event["step"] for event in folder.journal.read()]
            assert steps == [step for step in range(1, last + 1) for _ in range(2)]
