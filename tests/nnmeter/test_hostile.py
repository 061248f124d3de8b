"""Hostile pickles: none runs, imports or opens anything, and none takes more than its share of memory and time."""

import io
import pickle
import pickletools
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quadnas.errors import DataError
from quadnas.nnmeter.forests import read_forest
from quadnas.nnmeter.pickles import read_pickle
from tests.nnmeter.written import FOREST, MEMBER, TREE, Made, Name, Writer, as_old, dtype, fitted, old_pickle

COLUMNS = 3
SENTINEL = "ran"
WATCHER = """
import resource, sys, time
from pathlib import Path
from quadnas.errors import DataError
from quadnas.nnmeter.forests import read_forest
files = [(path, open(path, "rb"), path.stat().st_size) for path in sorted(Path(".").glob("*.pkl"))]
read_forest(*[(f, s, 3, "warm") for p, f, s in files if p.name == "good.pkl"][0])
events, watched = [], False
sys.addaudithook(lambda event, arguments: events.append((event, str(arguments)[:99])) if watched else None)
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path, file, size in files:
    start, taken = time.monotonic(), False
    watched = True
    try:
        if path.name != "good.pkl":
            read_forest(file, size, 3, path.name)
            taken = True
    except DataError:
        pass
    watched = False
    print(path.name, taken, time.monotonic() - start < 20, sorted(set(events)), flush=True)
    events.clear()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)
"""


class Runs:
    """What the real unpickler would call."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


def touch() -> tuple[Any, ...]:
    return (open, (SENTINEL, "w"))


def in_the_state(value: Any) -> bytes:
    """A proper forest with something else in its attributes."""
    made = as_old(fitted(COLUMNS))
    whole = Writer(4)
    whole.add(Made(FOREST, (), {**made.state, "n_jobs": 7}, new=True))
    inside = pickle.dumps(value, 4)[2:-1]
    inside = inside[9:] if inside.startswith(pickle.FRAME) else inside
    return bytes(whole.data).replace(pickle.BININT + struct.pack("<i", 7), inside, 1) + pickle.STOP


def doubled(times: int) -> bytes:
    """[], [a, a], [b, b] ...: 2**times elements by name, few bytes."""
    data = pickle.PROTO + b"\x04" + pickle.EMPTY_LIST + pickle.MEMOIZE
    for index in range(times):
        data += pickle.EMPTY_LIST + pickle.MARK + (pickle.BINGET + bytes([index])) * 2 + pickle.APPENDS
        data += pickle.MEMOIZE
    return data + pickle.STOP


def claims(opcode: bytes, length: bytes) -> bytes:
    return pickle.PROTO + b"\x04" + opcode + length + b"abc" + pickle.STOP


HOSTILE: dict[str, bytes] = {
    "open": pickle.dumps(Runs(*touch())),
    "open-0": pickle.dumps(Runs(*touch()), 0),
    "open-2": pickle.dumps(Runs(*touch()), 2),
    "system": b"\x80\x03cposix\nsystem\n(X\x09\x00\x00\x00touch rantR.",
    "eval": pickle.dumps(Runs(eval, ("open('ran', 'w')",))),
    "getattr": b"\x80\x03cbuiltins\ngetattr\n(csklearn.tree._tree\nTree\nX\x08\x00\x00\x00__init__tR.",
    "in-a-list": pickle.dumps([[[Runs(*touch())]]]),
    "in-the-state": in_the_state(Runs(*touch())),
    "in-a-dtype": Writer(4).whole(Made("numpy dtype", (Made("builtins exec", ("open('ran', 'w')",)), 0, 1))),
    "setstate": b"\x80\x02cos\nsystem\n)\x81}(X\x01\x00\x00\x00aK\x01ub.",
    "allowed-class-as-function": Writer(4).whole(Made(TREE, (Name(FOREST), Name(MEMBER), 1), {"a": 1})),
    "dotted-name": b"\x80\x04\x8c\x24sklearn.ensemble._forest.os.system.\x94\x8c\x01x\x93)R.",
    "dotted-split": b"\x80\x04\x8c\x06sklear\x94\x8c\x01n\x93)R.",
    "numpy-load": Writer(4).whole(Made("numpy load", ("evil.npy",))),
    "numpy-fromfile": Writer(4).whole(Made("numpy fromfile", ("evil.bin",))),
    "inst": b"\x80\x02(X\x03\x00\x00\x00ranibuiltins\nopen\n.",
    "obj": b"\x80\x02(cbuiltins\nopen\nX\x03\x00\x00\x00rano.",
    "newobj-ex": b"\x80\x04cbuiltins\nopen\n)}\x92.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"\x80\x02X\x03\x00\x00\x00ranQ.",
    "next-buffer": b"\x80\x05\x97.",
    "escape": b"\x80\x02c\\x6fs\nsystem\n)R.",
    "long-line": b"\x80\x02c" + b"a" * 10_000_000,
    "bytes-4": claims(pickle.BINBYTES, b"\xff\xff\xff\xff"),
    "bytes-8": claims(pickle.BINBYTES8, b"\xff\xff\xff\xff\xff\xff\xff\x7f"),
    "bytearray-8": claims(pickle.BYTEARRAY8, b"\xff\xff\xff\xff\xff\x00\x00\x00"),
    "text-8": claims(pickle.BINUNICODE8, b"\xff\xff\xff\xff\xff\xff\xff\x7f"),
    "long-4": claims(pickle.LONG4, b"\xff\xff\xff\x7f"),
    "negative": claims(pickle.LONG4, b"\xff\xff\xff\xff"),
    "frame": claims(pickle.FRAME, b"\xff\xff\xff\xff\xff\xff\xff\x7f"),
    "memo": b"\x80\x02N" + b"".join(b"r" + struct.pack("<I", 2**32 - 1 - i) for i in range(1000)) + b".",
    "marks": b"\x80\x04" + b"(" * 1_200_000 + b".",
    "nones": b"\x80\x04" + b"N" * 1_200_000 + b".",
    "nested": b"\x80\x04" + b")" + b"\x85" * 1_200_000 + b".",
    "nested-lists": b"\x80\x04" + b"]" * 700_000 + b"a" * 699_999 + b".",
    "itself": b"\x80\x04]\x94h\x00a.",
    "doubled": doubled(200),
    "key-doubled": b"\x80\x04}" + doubled(200)[2:-1].replace(b"]", b")") + b"Ns.",
    "unhashable-key": b"\x80\x04}]Ns.",
    "huge-shape": Writer(4).whole(
        Made(FOREST, (), {"n_estimators": 1, "estimators_": [Made(MEMBER, (), {"tree_": Made(TREE, (3, None, 1), {
            "node_count": 2**30, "values": None, "nodes": Made("numpy.core.multiarray _reconstruct", (),
                (1, (2**30, 2**30, 2**30), dtype(np.dtype("f8")), False, b""))})}, new=True)]}, new=True)
    ),
    "empty": b"",
    "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n",
    "behind-the-end": old_pickle(fitted(COLUMNS)) + b"N",
}  # fmt: skip


def test_none_runs_and_none_takes_much(tmp_path: Path) -> None:
    """In a process of its own that reports every audited event: imports, opened files, processes, code."""
    (tmp_path / "good.pkl").write_bytes(old_pickle(fitted(COLUMNS)))
    for name, data in HOSTILE.items():
        (tmp_path / f"{name}.pkl").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", WATCHER],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    *lines, grown_kilobytes = done.stdout.splitlines()
    assert len(lines) == len(HOSTILE) + 1
    for line in lines:
        name, *rest = line.split(" ", 3)
        assert rest == ["False", "True", "[]"], line
    assert int(grown_kilobytes) < 400_000
    assert not (tmp_path / SENTINEL).exists()


def test_the_watcher_sees_what_the_real_unpickler_would_do(tmp_path: Path) -> None:
    """The same watch over ``pickle.load`` reports the file that it opens."""
    (tmp_path / "good.pkl").write_bytes(old_pickle(fitted(COLUMNS)))
    (tmp_path / "open.pkl").write_bytes(HOSTILE["open"])
    real = WATCHER.replace("read_forest(file, size, 3, path.name)", "import pickle; pickle.load(file)")
    done = subprocess.run(
        [sys.executable, "-c", real], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert "('open'," in done.stdout and "pickle.find_class" in done.stdout
    assert (tmp_path / SENTINEL).exists()


@pytest.mark.parametrize("name", [name for name, data in HOSTILE.items() if len(data) < 10**6])
def test_the_refusal_says_what_it_met(name: str) -> None:
    with pytest.raises(DataError, match=r"f\.pkl is not a") as caught:
        read_forest(io.BytesIO(HOSTILE[name]), len(HOSTILE[name]), COLUMNS, "f.pkl")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "name", ["bytes-4", "bytes-8", "bytearray-8", "text-8", "long-4", "frame", "long-line"]
)
def test_no_more_is_asked_of_the_file_than_it_has(name: str) -> None:
    """A buffered file would reserve the claimed length before it reads."""

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None and 0 <= size <= len(HOSTILE[name])
            return super().read(size)

        def readline(self, size: int | None = -1, /) -> bytes:
            assert size is not None and 0 <= size <= 1000
            return super().readline(size)

    with pytest.raises(DataError):
        read_forest(Watched(HOSTILE[name]), len(HOSTILE[name]), COLUMNS, "f.pkl")


@pytest.mark.parametrize("name", ["marks", "nones", "nested", "nested-lists"])
def test_too_many_opcodes_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="more than 1000000 opcodes"):
        read_forest(io.BytesIO(HOSTILE[name]), len(HOSTILE[name]), COLUMNS, "f.pkl")


@pytest.mark.parametrize(
    ("name", "part"),
    [("open", "io.open"), ("system", "posix.system"), ("eval", "builtins.eval"), ("in-the-state", "io.open")],
)
def test_the_name_that_would_have_been_called_is_said(name: str, part: str) -> None:
    with pytest.raises(DataError, match=f"refers to '{part}'.*nothing of it was run"):
        read_forest(io.BytesIO(HOSTILE[name]), len(HOSTILE[name]), COLUMNS, "f.pkl")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_truncated_anywhere(protocol: int) -> None:
    """At every opcode of both layouts, and at every byte in and around the first."""
    forest = fitted(COLUMNS, trees=1, samples=10)
    for data in (old_pickle(forest, protocol), pickle.dumps(forest, protocol)):
        ends = {position or 0 for _, _, position in pickletools.genops(data)} | set(range(300))
        for end in ends:
            with pytest.raises(DataError):
                read_forest(io.BytesIO(data[:end]), end, COLUMNS, "f.pkl")


def test_a_stream_that_ends_before_its_size() -> None:
    data = old_pickle(fitted(COLUMNS))
    with pytest.raises(DataError):
        read_forest(io.BytesIO(data[: len(data) // 2]), len(data), COLUMNS, "f.pkl")


def test_time_is_linear_in_the_opcodes() -> None:
    """Groups that end over and over on a tall stack cost what they hold, not the height of the stack."""
    data = b"\x80\x04" + b"N" * 300_000 + b"(t" * 300_000 + b"."
    start = time.process_time()
    with pytest.raises(DataError):
        read_pickle(io.BytesIO(data), len(data), "f.pkl")
    assert time.process_time() - start < 20
