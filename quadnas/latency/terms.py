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
    def taps(self) -> Vector:
        """Kernel taps that fall inside the map, over all output pixels: what depthwise code executes."""
        return (
            self.batch
            * _valid_taps(self.h, self.kernel, self.stride)
            * _valid_taps(self.w, self.kernel, self.stride)
        )


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


def _conv(s: Shapes) -> dict[str, Vector]:
    """A matrix product of (positions x depth) by (depth x cout), after a gather where kernel > 1."""
    depth = s.cin * s.kernel**2
    macs = s.positions * depth * s.cout
    spatial = s.kernel > 1
    gathered = s.positions * depth
    return {
        "spatial_macs": macs * spatial,
        "tile_macs": _up(s.positions, 8) * _up(s.cout, 8) * depth,
        "macs_odd_depth": s.positions * s.cout * _up(s.cin, 8) * s.kernel**2,
        "macs_deep": macs * np.maximum(np.log2(depth / 8192), 0),
        "macs_deeper": macs * np.maximum(np.log2(depth / 16384), 0),
        "macs_wide_map": macs * np.maximum(np.log2(s.positions / 784), 0),
        "weights": depth * s.cout,
        "input": s.positions_in * s.cin,
        "output": s.positions * s.cout,
        "input_beyond": _beyond(s.positions_in * s.cin, CACHE_ELEMENTS),
        "output_beyond": _beyond(s.positions * s.cout, CACHE_ELEMENTS),
        "gathered": gathered,
        "gathered_spatial": gathered * spatial,
        "gathered_strided": gathered * (s.stride > 1),
        "gathered_beyond": _beyond(gathered, CACHE_ELEMENTS) * spatial,
        "rows": s.positions * s.cin * s.kernel * spatial,
        "cout": s.cout,
    }


def _dwconv(s: Shapes) -> dict[str, Vector]:
    macs = s.taps * s.cin
    strided = s.stride > 1
    map_in = s.positions_in * s.cin
    return {
        "macs": macs,
        "macs_spatial": macs * (s.kernel > 1),
        "macs_over_3": macs * (s.kernel > 3),
        "macs_over_5": macs * (s.kernel > 5),
        "macs_strided": macs * strided,
        "output": s.positions * s.cin,
        "output_strided": s.positions * s.cin * strided,
        "input": map_in,
        "input_beyond": _beyond(map_in, CACHE_ELEMENTS / 2),
        "positions": s.positions,
        "rows": s.positions * s.kernel,
        "taps": s.positions * s.kernel**2,
        "weights": s.kernel**2 * s.cin,
    }


def _fc(s: Shapes) -> dict[str, Vector]:
    weights = s.cin * s.cout
    return {
        "macs": s.batch * weights,
        "weights": weights,
        "weights_beyond": _beyond(weights, CACHE_ELEMENTS),
        "cout": s.cout,
    }


def _pool(s: Shapes) -> dict[str, Vector]:
    return {
        "taps": s.positions * s.cin * s.kernel**2,
        "input": s.positions_in * s.cin,
        "positions": s.positions,
    }


def _global_pool(s: Shapes) -> dict[str, Vector]:
    """Most measured rows say h = 1 whatever the map was (nn-Meter's spelling), so only channels count."""
    return {"channels": s.batch * s.cin}


def _elementwise(s: Shapes) -> dict[str, Vector]:
    elements = s.positions_in * (s.cin + s.cout)
    return {
        "elements": elements,
        "elements_beyond": _beyond(elements, CACHE_ELEMENTS),
        "rows": s.positions_in * s.inputs,
    }


TERMS: dict[str, Callable[[Shapes], dict[str, Vector]]] = {
    "conv": _conv,
    "dwconv": _dwconv,
    "fc": _fc,
    "max-pool": _pool,
    "avg-pool": _pool,
    "global-pool": _global_pool,
    **dict.fromkeys(("add", "relu", "bn", "concat", "split", "channel_shuffle"), _elementwise),
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
