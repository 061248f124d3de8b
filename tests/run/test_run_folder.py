"""Creation, lock, commits, artefacts of a run folder."""

import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from quadnas.errors import ConfigError, DataError, MachineError
from quadnas.run.folder import RunFolder
from quadnas.run.sealed import decode, encode, seal, unseal

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

Spawn = Callable[[Callable[[], None]], int]


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def files(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir() if entry.name != "lock"}


def test_create_then_open(tmp_path: Path) -> None:
    written = {"limit_ms": 0.1 + 0.2, "device": "cortexA76", "nested": {"list": [1, None, True]}}
    assert RunFolder.create(tmp_path / "runs" / "a", written).settings == written
    assert RunFolder.open(tmp_path / "runs" / "a").settings == written
    assert json.loads((tmp_path / "runs" / "a" / "run.json").read_text())["settings"] == written


def test_create_refuses_an_existing_run(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, {"seed": 1})
    with pytest.raises(ConfigError, match="--resume"):
        RunFolder.create(tmp_path, {"seed": 2})
    assert RunFolder.open(tmp_path).settings == {"seed": 1}


def test_create_leaves_other_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"empty folder.*thesis\.tex"):
        RunFolder.create(tmp_path, {})
    with pytest.raises(ConfigError, match="is a file"):
        RunFolder.create(tmp_path / "thesis.tex", {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_create_refuses_settings_that_are_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        RunFolder.create(tmp_path / "a", {"lr": float("nan")})
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["missing", ".", "file"])
def test_open_refuses_what_is_no_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="not a run folder"):
        RunFolder.open(tmp_path / name)


def test_open_refuses_another_format(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(seal({"format": "quadnas-run/9", "settings": {}}))
    with pytest.raises(DataError, match="quadnas-run/9"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize(
    "dtype_name",
    ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"],
)
def test_every_dtype_comes_back_bit_for_bit(tmp_path: Path, dtype_name: str) -> None:
    dtype: torch.dtype = getattr(torch, dtype_name)
    bits = torch.randint(0, 256, (5, 4, 3, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    values = bits > 127 if dtype == torch.bool else bits.view(dtype)
    tensors = {
        "odd_bytes_first": torch.arange(3, dtype=torch.uint8),
        "plain": values,
        "channels_last": values.contiguous(memory_format=torch.channels_last),
        "broadcast": values[:1, :1, :1, :1].expand(2, 2, 3, 1),
        "strided": values[::2, :, 1],
        "empty": values[:0],
        "scalar": values[0, 0, 0, 0],
    }
    with RunFolder.create(tmp_path, {}) as folder:
        folder.commit(tensors, {}, step=1)
        checkpoint = folder.latest()
    assert checkpoint is not None
    for loaded in (checkpoint.tensors, load_file(tmp_path / "checkpoint-000001.safetensors")):
        assert loaded.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(as_bits(loaded[name]), as_bits(tensor))
    data = (tmp_path / "checkpoint-000001.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8:start]).items():  # aligned, so that any version can map it
        assert (start + entry["data_offsets"][0]) % tensors[name].element_size() == 0


def as_bits(tensor: torch.Tensor) -> torch.Tensor:
    """NaN bit patterns compare equal as bytes."""
    return tensor.contiguous().flatten().view(torch.uint8)


def test_a_gradient_and_an_empty_dict_are_fine(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, {}) as folder:
        folder.commit({"p": torch.nn.Parameter(torch.ones(2))}, {}, step=1)
        folder.commit({}, {}, step=2)
        checkpoint = folder.latest()
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.tensors, checkpoint.state) == (2, {}, {})


def test_loaded_tensors_are_private(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, {}) as folder:
        folder.commit({"w": torch.ones(1000)}, {}, step=1)
        before = files(tmp_path)
        checkpoint = folder.latest()
        assert checkpoint is not None
        checkpoint.tensors["w"].zero_()
        for step in (2, 3, 4):  # the file that the tensor was read from is gone by now
            folder.commit({}, {}, step=step)
    assert not checkpoint.tensors["w"].any()
    assert load_file_bytes(before["checkpoint-000001.safetensors"]).all()


def load_file_bytes(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data[-4000:]), dtype=torch.float32)


@pytest.mark.parametrize(
    ("tensors", "state", "error"),
    [
        ({}, {"loss": float("nan")}, ValueError),
        ({}, {"loss": float("inf")}, ValueError),
        ({}, {"by_step": {1: 2}}, TypeError),
        ({}, {"path": Path("x")}, TypeError),
        ({"z": torch.zeros(2, dtype=torch.complex64)}, {}, TypeError),
        ({"__metadata__": torch.zeros(2)}, {}, TypeError),
    ],
)
def test_what_cannot_be_stored_changes_nothing(
    tmp_path: Path, tensors: dict[str, torch.Tensor], state: dict[str, object], error: type[Exception]
) -> None:
    with RunFolder.create(tmp_path, {}) as folder:
        folder.commit({"w": torch.ones(1)}, {"n": 1}, step=1)
        before = files(tmp_path)
        with pytest.raises(error):
            folder.commit(tensors, state, step=2)
        assert files(tmp_path) == before


def test_two_checkpoints_are_kept_and_debris_is_removed(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, {}) as folder:
        for step in (5, 10, 10, 15):
            folder.commit({"w": torch.ones(1)}, {}, step=step)
        folder.write("model.yaml", "a: 1\n")
    (tmp_path / ".checkpoint-000005.safetensors.1.tmp").write_bytes(b"half")
    (tmp_path / "checkpoint-000005.safetensors").write_bytes(b"no manifest")
    with RunFolder.open(tmp_path):
        pass
    own = {f"checkpoint-00000{n}.{kind}" for n in (3, 4) for kind in ("json", "safetensors")}
    assert files(tmp_path).keys() == own | {"journal.jsonl", "run.json", "model.yaml"}


def test_rewind_to_the_start(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, {}) as folder:
        folder.journal.append({"step": 1})
        assert folder.latest() is None
        folder.rewind(None)
        assert folder.journal.read() == []


def test_a_full_disk_is_noticed_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder.create(tmp_path, {}) as folder:
        folder.commit({"w": torch.ones(1)}, {}, step=1)
        before = files(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 4_000_000))
        with pytest.raises(MachineError, match=r"needs 5\.0 MB.*4\.0 MB free.*--resume"):
            folder.commit({"w": torch.ones(1_000_000)}, {}, step=2)
        assert files(tmp_path) == before


def test_a_disk_that_fills_up_while_writing(tmp_path: Path, spawn: Spawn) -> None:
    """The kernel's file size limit refuses a write in the middle, as a full disk does."""
    RunFolder.create(tmp_path, {})

    def limited() -> None:
        with RunFolder.open(tmp_path) as folder:
            folder.journal.append({"step": 1})
            folder.commit({"w": torch.ones(10)}, {}, step=1)
            before = files(tmp_path)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            with pytest.raises(MachineError, match=r"checkpoint-000002\.safetensors.*--resume"):
                folder.commit({"w": torch.ones(5000)}, {}, step=2)
            with pytest.raises(MachineError, match=r"model\.yaml"):
                folder.write("model.yaml", "x" * 5000)
            with pytest.raises(MachineError, match=r"journal\.jsonl"):
                folder.journal.append({"text": "x" * 5000})
            assert files(tmp_path) == before
            folder.journal.append({"step": 2})
            assert folder.journal.read() == [{"step": 1}, {"step": 2}]

    assert os.waitpid(spawn(limited), 0)[1] == 0


@pytest.mark.parametrize(
    "name",
    [
        *["a/b", "../a", "..", ".", "", "/etc/passwd", "a\\b", ".hidden", "a\n"],
        *["run.json", "lock", "journal.jsonl", "checkpoint-000001.json", "checkpoint-000001.safetensors"],
    ],
)
def test_names_never_become_paths(tmp_path: Path, name: str) -> None:
    with RunFolder.create(tmp_path / "run", {}) as folder:
        before = files(tmp_path / "run")
        with pytest.raises(ValueError, match="plain name"):
            folder.write(name, b"x")
        assert files(tmp_path / "run") == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_write_replaces_whole_files(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, {}) as folder:
        assert folder.write("report.html", "<p>λ</p>") == tmp_path / "report.html"
        assert (tmp_path / "report.html").read_text(encoding="utf-8") == "<p>λ</p>"
        folder.write("report.html", b"\x00")
    assert (tmp_path / "report.html").read_bytes() == b"\x00"
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == (tmp_path / "lock").stat().st_mode & 0o777


def test_writing_needs_the_lock(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, {})
    for write in (
        lambda: folder.commit({}, {}, step=1),
        lambda: folder.write("a", b""),
        lambda: folder.rewind(None),
    ):
        with pytest.raises(RuntimeError, match="lock"):
            write()


def hold(path: Path, tell: int) -> None:
    """Take the lock, fork a data worker that outlives us, tell the worker's process id, wait to be killed."""
    with RunFolder.open(path) as folder:
        worker = os.fork()
        if worker == 0:
            with pytest.raises(RuntimeError, match="lock"):
                folder.write("a", b"")
            time.sleep(60)
            os._exit(0)
        os.write(tell, f"{worker}".encode())
        time.sleep(60)


def test_a_second_process_is_refused_at_once_and_a_kill_frees_the_lock(tmp_path: Path, spawn: Spawn) -> None:
    RunFolder.create(tmp_path, {})
    reader, writer = os.pipe()
    pid = spawn(lambda: hold(tmp_path, writer))
    os.close(writer)
    worker = int(os.read(reader, 20))
    os.close(reader)
    try:
        began = time.monotonic()
        with pytest.raises(MachineError, match=f"process {pid};"), RunFolder.open(tmp_path):
            pass
        assert time.monotonic() - began < 5
        assert RunFolder.open(tmp_path).latest() is None  # reading needs no lock
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with RunFolder.open(tmp_path) as folder:
            folder.commit({}, {}, step=1)
    finally:
        os.kill(worker, signal.SIGKILL)
    assert not (tmp_path / "a").exists()


def test_the_lock_excludes_within_a_process_too(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, {}), pytest.raises(MachineError, match=f"{os.getpid()}"):
        RunFolder.open(tmp_path).__enter__()
    with RunFolder.open(tmp_path), pytest.raises(ConfigError, match="--resume"):
        RunFolder.create(tmp_path, {})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_state_comes_back_exactly(state: dict[str, object]) -> None:
    for back in (decode(encode(state)), unseal(seal({"state": state}))["state"]):
        assert repr(back) == repr(state)  # also tells -0.0 from 0.0 and 1 from 1.0 and True


@settings(deadline=None)
@given(st.dictionaries(st.text(), json_values, min_size=1, max_size=3), st.data())
def test_every_changed_byte_breaks_the_seal(state: dict[str, object], data: st.DataObject) -> None:
    sealed = bytearray(seal(state))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match="checksum"):
        unseal(bytes(sealed))
