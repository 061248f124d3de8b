"""The quadratic depthwise convolution on the CPU by ``quadratic.c``, which computes in float32."""

import ctypes
import threading
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quadnas.errors import MachineError
from quadnas.ops import quadratic_torch
from quadnas.ops.native import load_native
from quadnas.ops.quadratic_torch import Gradients, layout, output_shape

_SOURCE = Path(__file__).with_name("quadratic.c")
_TENSORS = ("x", "weight", "bias", "grad", "y", "grad_x", "grad_weight", "grad_bias")
_NUMBERS = ("n", "c", "h", "w", "k", "stride", "planar")
_FLOATS: Any = {"dtype": torch.float32, "device": "cpu"}  # whatever torch's defaults are: C writes there
_loading = threading.Lock()


class _Call(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in _TENSORS),
        *((name, ctypes.c_int64) for name in _NUMBERS),
    )


def problem() -> str | None:
    """Why this machine cannot use the back-end, or None; the first call compiles and tries it."""
    with _loading:
        return _state()


def forward(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """y in the layout of x."""
    y = torch.empty(output_shape(x, stride), **_FLOATS, memory_format=layout(x))
    _call(x, weight, bias, stride, y=y)
    return y.to(x.dtype)


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: int, *, need_x: bool, need_parameters: bool
) -> Gradients:
    """The gradients of x (in its layout), weight and bias; an empty tensor for one that nobody needs."""
    of_x, of_weight, of_bias = (torch.empty(0, **_FLOATS) for _ in range(3))
    wanted = {}
    if need_x:
        wanted["grad_x"] = of_x = torch.empty(x.shape, **_FLOATS, memory_format=layout(x))
    if need_parameters:
        wanted["grad_weight"] = of_weight = torch.empty(weight.shape, **_FLOATS)
        wanted["grad_bias"] = of_bias = torch.empty(bias.shape, **_FLOATS)
    _call(x, weight, bias, stride, grad=_dense(grad, layout(x)), **wanted)
    return of_x.to(x.dtype), of_weight.to(weight.dtype), of_bias.to(bias.dtype)


def _dense(tensor: Tensor, memory_format: torch.memory_format) -> Tensor:
    return tensor.float().contiguous(memory_format=memory_format)


def _call(x: Tensor, weight: Tensor, bias: Tensor, stride: int, **others: Tensor) -> None:
    planar = layout(x) is torch.contiguous_format
    operands = {
        "x": _dense(x, layout(x)),
        "weight": _dense(weight, torch.contiguous_format),
        "bias": _dense(bias, torch.contiguous_format),
        **others,
    }
    numbers = dict(zip(_NUMBERS, (*x.shape, weight.shape[-1], stride, planar), strict=True))
    call = _Call(**{name: tensor.data_ptr() for name, tensor in operands.items()}, **numbers)
    failed = _library().quadratic_depthwise(ctypes.byref(call), torch.get_num_threads(), _parallel())
    if failed:
        raise MemoryError("no memory for the rows that the quadratic convolution works on")


@cache
def _library() -> ctypes.CDLL:
    return load_native(_SOURCE)


@cache
def _parallel() -> ctypes.c_void_p | None:
    """GOMP_parallel of the OpenMP runtime that torch has loaded: two pools of threads would fight."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p)
    except (AttributeError, OSError):
        return None


@cache
def _state() -> str | None:
    try:
        _library()
    except (MachineError, OSError) as error:
        return str(error)
    return None if _agrees_with_torch() else "the compiled kernel disagrees with torch on this machine"


def _agrees_with_torch() -> bool:
    generator = torch.Generator("cpu").manual_seed(0)
    x, weight, bias, grad = (
        torch.randn(shape, generator=generator, **_FLOATS)
        for shape in ((2, 19, 6, 5), (3, 19, 1, 3, 3), (3, 19), (2, 19, 3, 3))
    )
    needs = {"need_x": True, "need_parameters": True}
    ours = forward(x, weight, bias, 2), *backward(grad, x, weight, bias, 2, **needs)
    theirs = (
        quadratic_torch.forward(x, weight, bias, 2),
        *quadratic_torch.backward(grad, x, weight, bias, 2, **needs),
    )
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(ours, theirs, strict=True))
