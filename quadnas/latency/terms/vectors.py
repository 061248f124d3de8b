"""Terms of a processor with wide vectors that runs blocks as they are exported: LayerNorm, GELU, products.

They obey the law of ``quadnas.latency.terms``: none falls when channels, map or kernel grow.
"""

import numpy as np

from quadnas.latency.terms.general import Shapes, Term, Vector

LANES = 16  # fp32 values in one register of 512 bits
LARGE_TAPS = 7  # sides of depthwise kernels up to it have code of their own


def _lanes(channels: Vector) -> Vector:
    return np.ceil(channels / LANES) * LANES


def _elements(s: Shapes) -> Vector:
    return s.positions_in * s.cout


_CONV: dict[str, Term] = {
    "lane_macs": lambda s: np.ceil(s.positions / 6) * 6 * _lanes(s.cout) * s.depth,
    "macs_beyond_l2": lambda s: s.positions * s.depth * s.cout * (s.depth * s.cout > 256e3),
    "weights_beyond": lambda s: np.maximum(s.depth * s.cout - 256e3, 0),
    "spatial_input": lambda s: s.positions_in * s.cin * (s.kernel > 1),
    "spatial_output": lambda s: s.positions * s.cout * (s.kernel > 1),
    "spatial_output_beyond": lambda s: np.maximum(s.positions * s.cout - 128e3, 0) * (s.kernel > 1),
    "patches": lambda s: s.positions * (s.kernel > 1),
}

_DWCONV: dict[str, Term] = {
    "lane_macs": lambda s: s.taps * _lanes(s.cin),
    "lane_output": lambda s: s.positions * _lanes(s.cin),
    "macs_large": lambda s: s.taps * s.cin * (s.kernel > LARGE_TAPS),
    "lane_macs_large": lambda s: s.taps * _lanes(s.cin) * (s.kernel > LARGE_TAPS),
    "output_beyond": lambda s: np.maximum(s.positions * s.cin - 128e3, 0),
}

_ELEMENTWISE: dict[str, Term] = {
    "output": _elements,
    "output_beyond": lambda s: np.maximum(_elements(s) - 128e3, 0),
    "output_far_beyond": lambda s: np.maximum(_elements(s) - 1e6, 0),
}

_GLOBAL_POOL: dict[str, Term] = {
    "input": lambda s: s.positions_in * s.cin,
}

TERMS: dict[str, dict[str, Term]] = {
    "conv": _CONV,
    "dwconv": _DWCONV,
    "global-pool": _GLOBAL_POOL,
    **dict.fromkeys(("add", "mul", "gelu", "layernorm"), _ELEMENTWISE),
}
