"""Terms of a mobile GPU under TFLite's delegate: work-groups of threads, four channels to a texel.

A thread of a convolution computes 2 x 2 positions of 4 output channels and steps over the input 4 channels and
one kernel tap at a time. Threads run in work-groups that lie over the map, so a map that does not fill its last
work-groups pays for them as if it did: on an Adreno 640 that explains what a cost per weight explained before,
and the share within 5 % of measurements rises from 92 to 97 %. A card names these terms beside the general ones
(``quadnas.latency.terms``); they obey the same law: none falls when channels, map or kernel grow.
"""

import numpy as np

from quadnas.latency.terms.general import Shapes, Term, Vector

TEXEL = 4  # channels that are read and written together
BLOCK = 2  # positions along each side that one thread computes


def _texels(channels: Vector) -> Vector:
    return np.ceil(channels / TEXEL)


def _steps(s: Shapes) -> Vector:
    """How often a thread of a convolution reads input."""
    return _texels(s.cin) * s.kernel**2


def _side(size: Vector, s: Shapes, group: int) -> Vector:
    """Positions along a side of the output, filled up to whole work-groups of ``group`` threads."""
    threads = np.ceil(np.ceil(size / s.stride) / BLOCK)
    return np.ceil(threads / group) * group * BLOCK


def _group_macs(s: Shapes, columns: int, rows: int) -> Vector:
    """Multiply-accumulates of all threads of work-groups of columns x rows threads."""
    positions = s.batch * _side(s.w, s, columns) * _side(s.h, s, rows)
    return positions * TEXEL * _texels(s.cout) * TEXEL * _steps(s)


def _thread_macs(s: Shapes, threads: int) -> Vector:
    """Multiply-accumulates if threads start ``threads`` at a time, wherever they lie."""
    started = s.batch * _side(s.w, s, 1) * _side(s.h, s, 1) / BLOCK**2 * _texels(s.cout)
    return np.ceil(started / threads) * threads * BLOCK**2 * TEXEL * TEXEL * _steps(s)


_CONV: dict[str, Term] = {
    "steps": _steps,
    "groups_4x4": lambda s: _group_macs(s, 4, 4),
    "groups_8x4": lambda s: _group_macs(s, 8, 4),
    "groups_8x8": lambda s: _group_macs(s, 8, 8),
    "threads_1024": lambda s: _thread_macs(s, 1024),
    "threads_4096": lambda s: _thread_macs(s, 4096),
    "gathered": lambda s: s.positions * s.depth * (s.kernel > 1),
    "input_channels": lambda s: s.cin,
    "output_channels": lambda s: s.cout,
}

_DWCONV: dict[str, Term] = {
    "calls": lambda s: np.ones_like(s.h),
    "texel_macs": lambda s: s.positions * s.kernel**2 * TEXEL * _texels(s.cin),
}

_CONCAT: dict[str, Term] = {
    "elements_beyond_128k": lambda s: np.maximum(s.positions_in * (s.cin + s.cout) - 128e3, 0),
}

TERMS: dict[str, dict[str, Term]] = {"conv": _CONV, "dwconv": _DWCONV, "concat": _CONCAT}
