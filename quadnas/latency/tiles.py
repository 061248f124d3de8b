"""Terms of hardware that works in fixed tiles: a TPU's vector unit, the engines of an FPGA's DPU.

A card names them beside the general terms (``quadnas.latency.terms``); they obey the same law: none falls
when channels, map or kernel grow.
"""

import numpy as np

from quadnas.latency import workgroups
from quadnas.latency.terms import TERMS, Shapes, Term, Vector

LANES = 128  # of a TPU's vector registers
LANES_WORTH = 84  # channels laid out elsewhere that cost what a padded row of lanes costs
WIDE = 56  # sides beyond it cost a TPU more per element; fully so at twice the side
LARGE = 500e3  # elements of one image's map from which a TPU reads it again
GROUP = 16  # channels that a DPU handles at a time
POOL_SIDE = 32  # the largest map that a DPU averages in one pass


def _tiles(values: Vector, size: int) -> Vector:
    return np.ceil(values / size)


def _lanes(channels: Vector) -> Vector:
    """XLA lays channels along the lanes, padded to 128, or elsewhere without padding, whichever is cheaper."""
    return np.minimum(channels, LANES_WORTH * _tiles(channels, LANES))


def _wide(h: Vector, w: Vector) -> Vector:
    """0 for a map of side 56 and smaller, 1 from side 112 on."""
    return np.clip(np.maximum(h, w) / WIDE - 1, 0, 1)


def _wide_in(s: Shapes) -> Vector:
    return _wide(s.h, s.w) * s.positions_in


def _wide_out(s: Shapes) -> Vector:
    return _wide(np.ceil(s.h / s.stride), np.ceil(s.w / s.stride)) * s.positions


def _spilled(elements: Vector, memory: float) -> Vector:
    """Elements of a map that does not fit into a memory."""
    return elements * (elements > memory)


def _engine_cycles(s: Shapes, rows: int) -> Vector:
    """Cycles of a depthwise engine of ``rows`` output rows x 16 channels, taps outside the map included."""
    strips = _tiles(np.ceil(s.h / s.stride), rows) * np.ceil(s.w / s.stride)
    return s.batch * strips * _tiles(s.cin, GROUP) * s.kernel**2


_CONV: dict[str, Term] = {
    "matrix_tiles": lambda s: s.positions * _tiles(s.depth, LANES) * _tiles(s.cout, LANES),
    "lanes_wide_input": lambda s: _wide_in(s) * _lanes(s.cin),
    "lanes_wide_output": lambda s: _wide_out(s) * _lanes(s.cout),
    "lanes_large_input": lambda s: s.positions_in * _lanes(s.cin) * (s.h * s.w * s.cin > LARGE),
    "output_groups": lambda s: s.batch * _tiles(s.cout, GROUP),
    "input_spilled_256k": lambda s: _spilled(s.positions_in * s.cin, 256e3),
}

_DWCONV: dict[str, Term] = {
    "lanes_input": lambda s: s.positions_in * _lanes(s.cin),
    "lanes_output": lambda s: s.positions * _lanes(s.cin),
    "lanes_wide_input": lambda s: _wide_in(s) * _lanes(s.cin),
    "lanes_wide_output": lambda s: _wide_out(s) * _lanes(s.cin),
    "lanes_rows": lambda s: s.positions * s.kernel * _lanes(s.cin),
    "engine_cycles_4": lambda s: _engine_cycles(s, 4),
    "engine_cycles_8": lambda s: _engine_cycles(s, 8),
    "groups": lambda s: s.batch * _tiles(s.cin, GROUP),
    "output_spilled_1m": lambda s: _spilled(s.positions * s.cin, 1e6),
}

_AVG_POOL: dict[str, Term] = {
    "lanes_input": lambda s: s.positions_in * _lanes(s.cin),
    "lanes_wide_input": lambda s: _wide_in(s) * _lanes(s.cin),
    "groups": lambda s: s.batch * _tiles(s.cin, GROUP),
    "input_tall": lambda s: s.positions_in * s.cin * (s.h > POOL_SIDE),
    "lines_spilled_256k": lambda s: s.h * _spilled(s.positions_in * s.cin, 256e3),
    "lines_spilled_1m": lambda s: s.h * _spilled(s.positions_in * s.cin, 1e6),
}

_ELEMENTWISE: dict[str, Term] = {
    "lanes": lambda s: s.positions_in * s.inputs * _lanes(s.cout),
}

# What a network costs once, whatever it holds, stands with the pool before its classifier.
_GLOBAL_POOL: dict[str, Term] = {
    "images": lambda s: s.batch,
}

KNOWN_TERMS: dict[str, dict[str, Term]] = {
    **TERMS,
    "conv": TERMS["conv"] | _CONV | workgroups.CONV,
    "dwconv": TERMS["dwconv"] | _DWCONV | workgroups.DWCONV,
    "avg-pool": TERMS["avg-pool"] | _AVG_POOL,
    "global-pool": TERMS["global-pool"] | _GLOBAL_POOL,
    "add": TERMS["add"] | _ELEMENTWISE,
    "concat": TERMS["concat"] | workgroups.CONCAT,
}
"""All terms that a card may name, by operator."""
