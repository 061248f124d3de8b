"""Terms of hardware that works in fixed tiles: a TPU's vector unit, the engines of an FPGA's DPU.

A card names them beside the general terms (``quadnas.latency.terms``); they obey the same law: none falls
when channels, map or kernel grow.
"""

import numpy as np

from quadnas.latency.terms.general import Shapes, Term, Vector

LANES = 128  # of a TPU's vector registers
WIDE = 56  # sides beyond it cost a TPU more per element; fully so at twice the side
LARGE = 45e6  # elements of a batch's map beyond which each costs a TPU more
GROUP = 16  # channels that a DPU handles at a time
POOL_SIDE = 32  # beyond it, averaging costs a DPU more per element


def _tiles(values: Vector, size: int) -> Vector:
    return np.ceil(values / size)


def _lanes(channels: Vector, worth: int) -> Vector:
    """Channels lie along the lanes, padded to 128, or elsewhere without padding, whichever is cheaper.

    ``worth`` is how many channels laid out elsewhere cost as much as 128 lanes.
    """
    return np.minimum(channels, worth * _tiles(channels, LANES))


def _wide(h: Vector, w: Vector) -> Vector:
    """0 for a map of side 56 and smaller, 1 from side 112 on."""
    return np.clip(np.maximum(h, w) / WIDE - 1, 0, 1)


def _input(s: Shapes) -> Vector:
    return s.positions_in * s.cin


def _output(s: Shapes) -> Vector:
    return s.positions * s.cout


def _spilled(elements: Vector, memory: float) -> Vector:
    """Elements of a map that does not fit into a memory."""
    return elements * (elements > memory)


def _lane_terms(worth: int) -> dict[str, Term]:
    """Terms of the input or output of a kernel on a TPU, with the channels that its lanes are worth."""

    def wide_output(s: Shapes) -> Vector:
        return _wide(np.ceil(s.h / s.stride), np.ceil(s.w / s.stride)) * s.positions * _lanes(s.cout, worth)

    return {
        f"lanes{worth}_wide_input": lambda s: _wide(s.h, s.w) * s.positions_in * _lanes(s.cin, worth),
        f"lanes{worth}_wide_output": wide_output,
        f"lanes{worth}_large_input": lambda s: s.positions_in * _lanes(s.cin, worth) * (_input(s) > LARGE),
        f"lanes{worth}_large_output": lambda s: s.positions * _lanes(s.cout, worth) * (_output(s) > LARGE),
        f"lanes{worth}_rows": lambda s: s.positions * s.kernel * _lanes(s.cout, worth),
        f"lanes{worth}_large_rows": lambda s: (
            s.positions * s.kernel * _lanes(s.cout, worth) * (_output(s) > LARGE)
        ),
    }


_LANES = _lane_terms(76) | _lane_terms(100)


def _engine_cycles(s: Shapes, rows: int) -> Vector:
    """Cycles of a depthwise engine of ``rows`` output rows x 16 channels, taps outside the map included."""
    strips = _tiles(np.ceil(s.h / s.stride), rows) * np.ceil(s.w / s.stride)
    return s.batch * strips * _tiles(s.cin, GROUP) * s.kernel**2


_CONV: dict[str, Term] = {
    **_LANES,
    "output_groups": lambda s: s.batch * _tiles(s.cout, GROUP),
    "input_spilled_256k": lambda s: _spilled(_input(s), 256e3),
}

_DWCONV: dict[str, Term] = {
    **_LANES,
    "input_large": lambda s: _spilled(_input(s), LARGE),
    "engine_cycles_4": lambda s: _engine_cycles(s, 4),
    "engine_cycles_8": lambda s: _engine_cycles(s, 8),
    "output_spilled_1m": lambda s: _spilled(_output(s), 1e6),
}

_AVG_POOL: dict[str, Term] = {
    **_LANES,
    "groups": lambda s: s.batch * _tiles(s.cin, GROUP),
    "input_by_16": lambda s: s.positions_in * 16 * _tiles(s.cin, 16),
    "tall_input_by_16": lambda s: s.positions_in * 16 * _tiles(s.cin, 16) * (s.h > POOL_SIDE),
    "tall_input_by_32": lambda s: s.positions_in * 32 * _tiles(s.cin, 32) * (s.h > POOL_SIDE),
    "area_spilled_256k": lambda s: s.h * s.w * _spilled(_input(s), 256e3),
    "input_spilled_1m": lambda s: _spilled(_input(s), 1e6),
}

# What a network costs once, whatever it holds, stands with the pool before its classifier.
_GLOBAL_POOL: dict[str, Term] = {
    "images": lambda s: s.batch,
}

TERMS: dict[str, dict[str, Term]] = {
    "conv": _CONV,
    "dwconv": _DWCONV,
    "avg-pool": _AVG_POOL,
    "global-pool": _GLOBAL_POOL,
}
