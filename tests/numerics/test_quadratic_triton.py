"""The Triton kernels of the quadratic convolution: in the interpreter, on a GPU, compiled for GPUs elsewhere.

Each needs a process of its own: the interpreter is chosen when triton is first imported, and a compiler without
its device stays so.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton, a Linux-only package, is not installed")

ROOT = Path(__file__).parents[2]

COMPILE = """
import re
import torch
from benchmarks.ahead_of_time import compiled
for capability, dtype, side in ((80, torch.float32, 1), (90, torch.bfloat16, 3)):
    x = torch.empty(8, 64, 28, 28, dtype=dtype).contiguous(memory_format=torch.channels_last)
    for kernel in compiled(capability, x, side):
        atomics = len(re.findall(r"\\b(atom|red)\\.", kernel.ptx))
        print(capability, kernel.name, kernel.lanes, kernel.registers, kernel.spilled_bytes, atomics)
"""


def run(cache: Path, *arguments: str, interpret: bool) -> str:
    """The output of python, which must succeed."""
    settings = {
        "TRITON_INTERPRET": str(int(interpret)),
        "TRITON_CACHE_DIR": str(cache),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("where", ["interpreter", "GPU"])
def test_the_kernels_compute_the_definition(where: str, tmp_path: Path) -> None:
    if where == "GPU" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cases = Path(__file__).with_name("triton_cases.py")
    interpret = where == "interpreter"
    output = run(tmp_path, "-m", "pytest", "-p", "no:cacheprovider", str(cases), interpret=interpret)
    counts = re.search(r"(\d+) passed", output)
    assert counts is not None
    assert int(counts[1]) >= 20
    assert "skipped" not in output


def test_the_kernels_compile_for_gpus_without_spills_or_atomics(tmp_path: Path) -> None:
    lines = [line.split() for line in run(tmp_path, "-c", COMPILE, interpret=False).splitlines()]
    assert {line[1] for line in lines} == {"forward_kernel", "factors_kernel", "taps_kernel", "input_kernel"}
    assert len(lines) == 2 * (3 * 3 + 1)
    for _, _, _, registers, spilled, atomics in lines:
        assert 16 < int(registers) < 255
        assert (spilled, atomics) == ("0", "0")
