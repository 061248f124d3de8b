"""The command line as a user meets it: arguments in; exit code, stdout and stderr out."""

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from quadnas.cli import main

TINY_SPACE = """\
format: quadnas-space/1
description: four narrow stages, searched in seconds
candidates:
  - {block: quadra, kernel: [3, 5], expansion: [2]}
  - {block: identity}
stem: {block: patchify, stride: 4}
downsample: {block: downsample, stride: 2}
stages:
  - {channels: 8, depth: 1}
  - {channels: 16, depth: 1}
  - {channels: 24, depth: 1}
  - {channels: 32, depth: 1}
head: {block: classifier}
"""

TINY_SEARCH = """\
device: cortexA76
max_latency_ms: 3
train_size: 32
train_images: 200
schedule: {warmup_epochs: 1, search_epochs: 1, retrain_epochs: 1, architecture_every: 1}
"""


@dataclass(frozen=True)
class Answer:
    """What one command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The single line of JSON that stdout consists of."""
        assert self.code in (0, 4), self.err
        (line,) = self.out.splitlines()
        return json.loads(line)

    def refused(self, code: int, *parts: str) -> None:
        """Assert that the command ended in one message that holds all ``parts``, and in nothing else."""
        assert self.code == code, self
        (line,) = self.err.splitlines()
        assert line.startswith("quadnas: "), self
        for part in parts:
            assert part in line, f"{part!r} is not in {line!r}"
        assert len(line) < 800
        assert not self.out


def quadnas(*arguments: object) -> Answer:
    """Run a command in this process; an exception that it lets through is the traceback a user would see."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        mock.patch.object(sys, "argv", ["quadnas", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Answer(code, out.getvalue(), err.getvalue())


def python(*arguments: object, **environment: str) -> Answer:
    """Run ``python ARGUMENTS`` as a process of its own, in the present working directory."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def write(path: Path, text: str) -> Path:
    """Write a text file and return its path."""
    path.write_text(text)
    return path
