"""What a kernel's time may depend on: non-negative terms that grow with every size of the kernel.

A linear combination with non-negative coefficients of terms that do not fall when channels, map or kernel
grow cannot fall either, so the physical laws of ``LatencyModel`` hold for any coefficients. All arrays have
shape (kernels,); a term counts multiply-accumulates, elements or positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadnas.latency.kernels import Kernel

Vector = NDArray[np.float64]

L2_ELEMENTS = 20e6  # the 40 MB of an A100 in fp16
CACHE_ELEMENTS = 256e3  # 1 MB of fp32: beyond the second-level cache of every device we know


@dataclass(frozen=True, slots=True)
class Shapes:
    """The shapes of many kernels, column by column."""

    batch: Vector
    h: Vector
    w: Vector
    inputs: Vector
    cin: Vector
    cout: Vector
    kernel: Vector
    stride: Vector

    @classmethod
    def of(cls, kernels: Sequence[Kernel]) -> "Shapes":
        """Gather the columns."""
        rows = [(k.batch, k.h, k.w, len(k.inputs), k.cin, k.cout, k.kernel, k.stride) for k in kernels]
        return cls(*np.array(rows, dtype=np.float64).reshape(-1, 8).T)

    @property
    def positions_in(self) -> Vector:
        """Pixels of the input, over the batch."""
        return self.batch * self.h * self.w

    @property
    def positions(self) -> Vector:
        """Pixels of the output ("same" padding), over the batch."""
        return self.batch * np.ceil(self.h / self.stride) * np.ceil(self.w / self.stride)

    @property
    def depth(self) -> Vector:
        """Products that are summed up for one output of a convolution."""
        return self.cin * self.kernel**2

    @property
    def taps(self) -> Vector:
        """Kernel taps that fall inside the map, over all output pixels: what depthwise code executes."""
        down = _valid_taps(self.h, self.kernel, self.stride)
        square = np.array_equal(self.h, self.w)
        return self.batch * down * (down if square else _valid_taps(self.w, self.kernel, self.stride))


def _valid_taps(size: Vector, kernel: Vector, stride: Vector) -> Vector:
    """Pairs of output position and tap inside a line of ``size`` pixels with "same" padding."""
    outputs = np.ceil(size / stride)
    padding = np.floor(np.maximum((outputs - 1) * stride + kernel - size, 0) / 2)
    count = np.zeros_like(size)
    for tap in range(int(kernel.max(initial=0))):
        first = np.ceil(np.maximum(padding - tap, 0) / stride)
        last = np.minimum(np.floor((size - 1 + padding - tap) / stride), outputs - 1)
        count += np.where(tap < kernel, np.maximum(last - first + 1, 0), 0)
    return count


def _up(values: Vector, multiple: int) -> Vector:
    return np.ceil(values / multiple) * multiple


def _beyond(values: Vector, threshold: float) -> Vector:
    return np.maximum(values - threshold, 0)


def _macs(s: Shapes) -> Vector:
    return s.positions * s.depth * s.cout


def _growth(values: Vector, threshold: float) -> Vector:
    """How often ``values`` doubled beyond a threshold."""
    return np.maximum(np.log2(values / threshold), 0)


Term = Callable[[Shapes], Vector]

# A convolution is a product of (positions x depth) by (depth x cout), after a gather where kernel > 1.
_CONV: dict[str, Term] = {
    "calls": lambda s: np.ones_like(s.h),
    "macs": _macs,
    "tile_macs": lambda s: _up(s.positions, 8) * _up(s.cout, 8) * s.depth,
    "macs_by_128": lambda s: s.positions * _up(s.cout, 128) * _up(s.cin, 128) * s.kernel**2,
    "macs_odd_cin": lambda s: s.positions * s.cout * _up(s.cin, 8) * s.kernel**2,
    "macs_deep": lambda s: _macs(s) * _growth(s.depth, 8192),
    "macs_deeper": lambda s: _macs(s) * _growth(s.depth, 16384),
    "macs_wide": lambda s: _macs(s) * _growth(s.cout, 512),
    "macs_large_output": lambda s: _macs(s) * _growth(s.positions * s.cout, 256e3),
    "depth": lambda s: s.depth,
    "positions": lambda s: s.positions,
    "weights": lambda s: s.depth * s.cout,
    "input": lambda s: s.positions_in * s.cin,
    "output": lambda s: s.positions * s.cout,
    "gathered": lambda s: s.positions * s.depth * (s.kernel > 1),
    "gathered_strided": lambda s: s.positions * s.depth * (s.stride > 1),
    "gathered_beyond": lambda s: _beyond(s.positions * s.depth, 64e3) * (s.kernel > 1),
    "rows": lambda s: s.positions * s.cin * s.kernel * (s.kernel > 1),
}

_DWCONV: dict[str, Term] = {
    "macs": lambda s: s.taps * s.cin,
    "macs_by_8": lambda s: s.taps * _up(s.cin, 8),
    "macs_over_3": lambda s: s.taps * s.cin * (s.kernel > 3),
    "macs_over_5": lambda s: s.taps * s.cin * (s.kernel > 5),
    "output": lambda s: s.positions * s.cin,
    "input": lambda s: s.positions_in * s.cin,
    "input_spatial": lambda s: s.positions_in * s.cin * (s.kernel > 1),
    "input_beyond": lambda s: _beyond(s.positions_in * s.cin, CACHE_ELEMENTS / 2),
    "positions": lambda s: s.positions,
    "lines": lambda s: s.batch * np.ceil(s.h / s.stride) * s.kernel,
    "weights": lambda s: s.kernel**2 * s.cin,
}

_FC: dict[str, Term] = {
    "macs": lambda s: s.batch * s.cin * s.cout,
    "weights": lambda s: s.cin * s.cout,
    "weights_beyond": lambda s: _beyond(s.cin * s.cout, CACHE_ELEMENTS),
    "cout": lambda s: s.cout,
    "images": lambda s: s.batch,
}

_POOL: dict[str, Term] = {
    "calls": lambda s: np.ones_like(s.h),
    "taps": lambda s: s.positions * s.cin * s.kernel**2,
    "input": lambda s: s.positions_in * s.cin,
}

# Most measured rows say h = 1 whatever the map was (nn-Meter's spelling), so only channels count.
_GLOBAL_POOL: dict[str, Term] = {
    "channels": lambda s: s.batch * s.cin,
    "calls": lambda s: np.ones_like(s.h),
}

_ELEMENTWISE: dict[str, Term] = {
    "calls": lambda s: np.ones_like(s.h),
    "elements": lambda s: s.positions_in * (s.cin + s.cout),
    "elements_beyond": lambda s: _beyond(s.positions_in * (s.cin + s.cout), CACHE_ELEMENTS),
    "elements_beyond_l2": lambda s: _beyond(s.positions_in * (s.cin + s.cout), L2_ELEMENTS),
    "positions": lambda s: s.positions_in,
    "rows": lambda s: s.positions_in * s.inputs,
}

TERMS: dict[str, dict[str, Term]] = {
    "conv": _CONV,
    "dwconv": _DWCONV,
    "fc": _FC,
    "max-pool": _POOL,
    "avg-pool": _POOL,
    "global-pool": _GLOBAL_POOL,
    **dict.fromkeys(("add", "relu", "bn", "concat", "split", "channel_shuffle"), _ELEMENTWISE),
    **dict.fromkeys(("mul", "gelu", "layernorm"), _ELEMENTWISE),
}


def peak_work(op: str, s: Shapes) -> tuple[Vector, Vector]:
    """Multiply-accumulates, and elements that must move at least once (read or written)."""
    moved = s.positions_in * s.cin + s.positions * s.cout
    if op == "conv":
        return s.positions * s.cin * s.cout * s.kernel**2, moved + s.cin * s.cout * s.kernel**2
    if op == "dwconv":
        return s.taps * s.cin, moved
    if op == "fc":
        return s.batch * s.cin * s.cout, s.cin * s.cout + s.batch * (s.cin + s.cout)
    if op == "global-pool":
        return np.zeros_like(s.h), s.positions_in * s.cin
    return np.zeros_like(s.h), moved
