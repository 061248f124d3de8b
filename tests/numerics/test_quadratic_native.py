"""The compiled back-end of the quadratic operator: against torch in double precision, and what goes wrong."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from quadnas.errors import MachineError
from quadnas.ops import native, quadratic_native, quadratic_torch
from quadnas.ops.quadratic import quadratic_backend, quadratic_depthwise, quadratic_depthwise_eager
from quadnas.resources import own_home

SOURCE = Path(quadratic_native.__file__).with_name("quadratic.c")
NEEDS = {"need_x": True, "need_parameters": True}

compiled = pytest.mark.skipif(
    bool(native.switched_off() or not any(map(shutil.which, native.COMPILERS))),
    reason="no C compiler, or QUADNAS_NATIVE=0",
)


def operands(*shape: int, kernel: int, stride: int, seed: int = 0) -> tuple[Tensor, ...]:
    """The gradient of the output, x, weight and bias, channels-last."""
    generator = torch.Generator().manual_seed(seed)
    n, c, h, w = shape
    shapes = (n, c, -(-h // stride), -(-w // stride)), shape, (3, c, 1, kernel, kernel), (3, c)
    grad, x, weight, bias = (torch.randn(s, generator=generator) for s in shapes)
    last = torch.channels_last
    return grad.contiguous(memory_format=last), x.contiguous(memory_format=last), weight / kernel, bias


def results(back_end: object, tensors: tuple[Tensor, ...], stride: int) -> list[Tensor]:
    """The output and the three gradients."""
    forward, backward = back_end.forward, back_end.backward  # type: ignore[attr-defined]
    return [forward(*tensors[1:], stride), *backward(*tensors, stride, **NEEDS)]


def worst_error(found: list[Tensor], exact: list[Tensor]) -> float:
    """The largest deviation of the four, relative to the norm."""
    pairs = zip(found, exact, strict=True)
    return max(float((a.double() - b).norm() / b.norm().clamp(min=1e-9)) for a, b in pairs)


@compiled
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 19), st.integers(1, 19)),
    kernel=st.sampled_from(range(1, 16, 2)),
    stride=st.integers(1, 3),
    layouts=st.lists(st.sampled_from([torch.channels_last, torch.contiguous_format]), min_size=2, max_size=2),
)
@example(shape=(2, 32, 56, 57), kernel=7, stride=1, layouts=[torch.channels_last] * 2)
@example(shape=(2, 70, 14, 14), kernel=13, stride=2, layouts=[torch.channels_last] * 2)
@settings(deadline=None, max_examples=100)
def test_equals_torch_in_double_precision(
    shape: tuple[int, int, int, int], kernel: int, stride: int, layouts: list[torch.memory_format]
) -> None:
    tensors = operands(*shape, kernel=kernel, stride=stride)
    exact = results(quadratic_torch, tuple(t.double() for t in tensors), stride)
    grad, x = (t.contiguous(memory_format=layout) for t, layout in zip(tensors, layouts, strict=False))
    found = results(quadratic_native, (grad, x, *tensors[2:]), stride)
    assert worst_error(found, exact) < 2e-6
    for image in found[:2]:
        assert image.is_contiguous(memory_format=quadratic_torch.layout(x))


@compiled
def test_a_long_sum_stays_exact() -> None:
    """The weight gradient of a whole batch adds 100 000 products of one sign."""
    tensors = tuple(t.abs() for t in operands(32, 16, 56, 56, kernel=3, stride=1))
    exact = results(quadratic_torch, tuple(t.double() for t in tensors), 1)
    assert worst_error(results(quadratic_native, tensors, 1), exact) < 2e-6


@compiled
@pytest.mark.parametrize("shape", [(5, 24, 9, 11), (2, 130, 7, 7)])
def test_the_number_of_threads_changes_no_bit(shape: tuple[int, int, int, int]) -> None:
    tensors, before = operands(*shape, kernel=5, stride=1), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append(results(quadratic_native, tensors, 1))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.fixture
def fresh() -> Iterator[None]:
    """The back-end as in a process that has not used it; the one of the session is back afterwards."""
    forget = quadratic_native._library.cache_clear, quadratic_native._state.cache_clear
    for clear in forget:
        clear()
    yield
    for clear in forget:
        clear()


@compiled
@pytest.mark.skipif(
    platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists() or "fma" not in native._processor(),
    reason="takes an x86 processor with FMA",
)
def test_the_width_of_the_vectors_changes_no_bit(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = operands(5, 37, 11, 13, kernel=7, stride=2)
    found = []
    for target in ("-march=native", "-march=x86-64-v3", "-mfma"):
        monkeypatch.setattr(native, "TARGETS", (target,))
        quadratic_native._library.cache_clear()
        found.append(results(quadratic_native, tensors, 2))
    assert all(map(torch.equal, found[0], found[1]))
    assert all(map(torch.equal, found[0], found[2]))


@compiled
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_defaults_of_torch_change_nothing(dtype: torch.dtype) -> None:
    """C writes float32 into what Python allocates: in the default dtype that would be too little, or misread."""
    tensors = operands(2, 20, 9, 8, kernel=3, stride=1)
    exact = results(quadratic_native, tensors, 1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            found, agrees = results(quadratic_native, tensors, 1), quadratic_native._agrees_with_torch()
    finally:
        torch.set_default_dtype(before)
    assert all(map(torch.equal, found, exact)) and agrees


@compiled
def test_two_threads_call_at_once() -> None:
    inputs = [operands(2, 40, 12, 12, kernel=7, stride=1, seed=seed) for seed in range(6)]
    expected = [results(quadratic_native, tensors, 1) for tensors in inputs]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            found = list(pool.map(lambda tensors: results(quadratic_native, tensors, 1), inputs))
            for ours, theirs in zip(found, expected, strict=True):
                assert all(map(torch.equal, ours, theirs))


@compiled
def test_not_a_number_spreads_as_far_as_the_kernel_and_stays_in_its_channel() -> None:
    grad, x, weight, bias = operands(2, 20, 9, 9, kernel=3, stride=1)
    x[1, 17, 4, 4] = torch.nan
    y, grad_x, grad_weight, grad_bias = results(quadratic_native, (grad, x, weight, bias), 1)
    touched = torch.zeros_like(y, dtype=torch.bool)
    touched[1, 17, 3:6, 3:6] = True
    assert torch.equal(y.isnan(), touched)
    touched[1, 17, 2:7, 2:7] = True
    assert torch.equal(grad_x.isnan(), touched)
    assert grad_weight[:, 17].isnan().all()
    assert torch.equal(grad_bias.isnan().nonzero(), torch.tensor([[0, 17], [1, 17]]))
    assert int(grad_weight.isnan().any(-1).any(-1).sum()) == 3


@compiled
def test_half_precision_is_rounded_once() -> None:
    grad, x, weight, bias = (t.bfloat16() for t in operands(2, 24, 12, 12, kernel=7, stride=1))
    exact = results(quadratic_torch, tuple(t.double() for t in (grad, x, weight, bias)), 1)
    for back_end in (quadratic_native, quadratic_torch):
        found = results(back_end, (grad, x, weight, bias), 1)
        assert {t.dtype for t in found} == {torch.bfloat16}
        for ours, true in zip(found, exact, strict=True):
            torch.testing.assert_close(ours, true.float().bfloat16(), rtol=2**-7, atol=1e-5)


@compiled
def test_is_what_the_cpu_uses_unless_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert quadratic_backend("cpu", dtype).name == "native"
    assert quadratic_backend("cpu", torch.float64).name == "torch"
    monkeypatch.setenv("QUADNAS_NATIVE", "0")
    assert quadratic_backend("cpu", torch.float32) == ("torch", "QUADNAS_NATIVE=0")


def test_torch_takes_over_where_there_is_no_compiler(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUADNAS_NATIVE", raising=False)
    monkeypatch.setenv("PATH", "")
    backend = quadratic_backend("cpu", torch.float32)
    assert backend == ("torch", "no C compiler (cc, gcc, clang) on the PATH")
    _, x, weight, bias = operands(1, 2, 4, 4, kernel=3, stride=1)
    expected = quadratic_depthwise_eager(x.double(), weight.double(), bias.double())
    torch.testing.assert_close(quadratic_depthwise(x, weight, bias).double(), expected, rtol=1e-5, atol=1e-5)


def test_torch_takes_over_where_the_compiler_fails(
    fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("QUADNAS_NATIVE", raising=False)
    (tmp_path / "cc").write_text("#!/bin/sh\necho 'cc: fatal error: no input' >&2; exit 1\n")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    backend = quadratic_backend("cpu", torch.float32)
    assert backend == ("torch", f"{tmp_path / 'cc'} failed: cc: fatal error: no input")


def test_ctrl_c_does_not_reach_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the rest of a step would be computed by torch, and a resumed run would differ."""
    (tmp_path / "cc").write_text(
        f"#!{sys.executable}\nimport os\nraise SystemExit(f'session {{os.getsid(0)}}')\n"
    )
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="session") as refusal:
        native.load_native(SOURCE)
    assert f"session {os.getsid(0)}" not in str(refusal.value)


@compiled
def test_a_kernel_that_computes_something_else_is_not_used(
    fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = SOURCE.read_text()
    right, wrong = "sum[2] += g[first + t];", "sum[2] -= g[first + t];"
    assert text.count(right) == 1
    (tmp_path / "quadratic.c").write_text(text.replace(right, wrong))
    monkeypatch.setattr(quadratic_native, "_SOURCE", tmp_path / "quadratic.c")
    assert quadratic_native.problem() == "the compiled kernel disagrees with torch on this machine"


LITTLE = "int answer(void) { return 42; }\n"


@pytest.fixture
def little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A C file, and an empty home."""
    monkeypatch.setenv("QUADNAS_HOME", str(tmp_path / "home"))
    path = tmp_path / "little.c"
    path.write_text(LITTLE)
    return path


def cached_files() -> list[Path]:
    return sorted(own_home().rglob("native/*/*"))


@compiled
def test_is_compiled_once(little: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.load_native(little).answer() == 42
    (cached,) = cached_files()
    assert cached.stem == hashlib.sha256(cached.read_bytes()).hexdigest()
    monkeypatch.setattr(native, "_compile", lambda *arguments: pytest.fail("compiled again"))
    assert native.load_native(little).answer() == 42


@compiled
def test_a_file_of_another_user_is_not_executed(little: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native.load_native(little)
    theirs = cached_files()[0].stat().st_ino
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert native.load_native(little).answer() == 42
    (cached,) = cached_files()
    assert cached.stat().st_ino != theirs


@compiled
@pytest.mark.parametrize("damage", [b"", b"not a library", None])
def test_a_damaged_file_is_compiled_anew(little: Path, damage: bytes | None) -> None:
    native.load_native(little)
    (cached,) = cached_files()
    whole = cached.read_bytes()
    flipped = whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:]
    cached.unlink()  # the library of before stays mapped
    cached.write_bytes(flipped if damage is None else damage)
    assert native.load_native(little).answer() == 42
    assert cached.read_bytes() == whole


@compiled
def test_another_source_or_processor_is_another_file(little: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native.load_native(little)
    little.write_text(LITTLE.replace("42", "43"))
    assert native.load_native(little).answer() == 43
    monkeypatch.setattr(native, "_processor", lambda: "another")
    native.load_native(little)
    assert len(cached_files()) == 3


@compiled
def test_works_without_a_place_to_keep_it(little: Path) -> None:
    own_home().write_text("a file where the folder should be")
    assert native.load_native(little).answer() == 42


@compiled
def test_an_error_in_the_source_is_told(little: Path) -> None:
    little.write_text("int answer(void) { return forty_two; }")
    with pytest.raises(MachineError, match="forty_two"):
        native.load_native(little)
    assert cached_files() == []


@compiled
def test_several_processes_compile_at_once(little: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from quadnas.ops.native import load_native; "
        "print('ready', flush=True); sys.stdin.read(1); print(load_native(Path(sys.argv[1])).answer())"
    )
    command = [sys.executable, "-c", code, str(little)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0] for process in processes] == ["42\n"] * 4
    (cached,) = cached_files()
    assert ctypes.CDLL(str(cached)).answer() == 42
