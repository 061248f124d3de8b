"""The quadratic operator's Triton kernels compiled for a CUDA device that is not there: registers and spills."""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from quadnas.ops import quadratic_kernels, quadratic_triton

KERNELS = ("forward_kernel", "factors_kernel", "taps_kernel", "input_kernel")


@dataclass(frozen=True)
class Compiled:
    """A kernel's machine code for one device: 32-bit registers and bytes of spills per thread, and its PTX."""

    name: str
    lanes: int
    registers: int
    spilled_bytes: int
    ptx: str


class _Device:
    """What Triton asks its driver before it compiles; it keeps what it learns by the device's number."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return int(self._target.arch)

    def get_current_stream(self, device: int) -> int:
        return device


class _Compiling:
    """Stands in for a kernel: a launch compiles every configuration, by Triton's own path, and runs none."""

    def __init__(self, kernel: Any, found: list[Compiled]) -> None:
        self._kernel, self._found = kernel, found

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *arguments, **options: self._found.extend(self._compile(grid, arguments, options))

    def _compile(self, grid: Any, arguments: Any, options: dict[str, Any]) -> Iterator[Compiled]:
        plain = isinstance(self._kernel, JITFunction)
        function = self._kernel if plain else self._kernel.fn
        for config in [{}] if plain else [config.all_kwargs() for config in self._kernel.configs]:
            kernel = function.warmup(*arguments, grid=grid, **options, **config)
            lanes = config.get("lanes", 128)
            yield Compiled(function.__name__, lanes, *_usage(kernel.asm["cubin"]), kernel.asm["ptx"])


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes, by the tool in Triton's wheel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", text).groups()  # type: ignore[union-attr]
    return int(registers), int(stack)


@contextmanager
def _compiling(capability: int) -> Iterator[list[Compiled]]:
    kernels = {name: getattr(quadratic_kernels, name) for name in KERNELS}
    found: list[Compiled] = []
    driver.set_active(_Device(capability))
    for name, kernel in kernels.items():
        setattr(quadratic_kernels, name, _Compiling(kernel, found))
    try:
        yield found
    finally:
        for name, kernel in kernels.items():
            setattr(quadratic_kernels, name, kernel)


def compiled(capability: int, x: Tensor, kernel: int, stride: int = 1) -> list[Compiled]:
    """Every kernel of forward and backward for ``x``'s shape, layout and dtype, a side of ``kernel``.

    capability: 80 for an A100, 90 for an H100. A process that has done so can launch nothing on a real device.
    """
    channels = x.shape[1]
    weight, bias = torch.empty(3, channels, 1, kernel, kernel), torch.empty(3, channels)
    with _compiling(capability) as found:
        y = quadratic_triton.forward(x, weight, bias, stride)
        quadratic_triton.backward(y, x, weight, bias, stride, need_x=True, need_parameters=True)
    return found
