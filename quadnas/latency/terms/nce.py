"""Terms of the Myriad X's convolution engine: how OpenVINO 2019 lays a convolution out on it.

An engine works on blocks of input channels and groups of output channels, 1 x 256 to 16 x 16 of them, one
"descriptor" per group, and spends ``MODE_CYCLES`` per pixel beyond its products. A block holds 256 weights
per output channel, its line buffers 128 KB, a tile of the output must fit into on-chip memory: what does not
is cut, the map into tiles whose borders are computed twice, the input channels into parts whose outputs are
summed up in software. Depthwise convolutions run as dense ones on tiles of channels. A card names these terms
beside the general ones (``quadnas.latency.terms``). They grow with channels, map and kernel but for steps:
where another cut gets possible, work may fall. Source of the rules and numbers: the open-source compiler
(openvinotoolkit/openvino, Apache-2.0, inference-engine/src/vpu); sizes of memory and rates: the measurements.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from quadnas.latency.kernels import Kernel
from quadnas.latency.terms.general import Shapes, Term, Vector

MACS_PER_CYCLE = 256
SOFTWARE_MACS_PER_CYCLE = 32  # two for each of the 16 vector cores
PADDING_CYCLES = 2200  # per channel of a map that software pads, whatever its size
MODE_CYCLES = (0, 5, 11, 19, 31)  # per pixel and descriptor with 1, 2, 4, 8, 16 blocks
BLOCK_WEIGHTS = 256
LINE_BUFFER_BYTES = 128 * 1024
TILE_BYTES = 576 * 1024
MAX_CUTS = 15
MIN_WIDTH = 64  # no tile of a cut row is narrower
MAX_KERNEL = 15
MAX_STRIDE = 8
DEPTHWISE_TILES = (16, 32, 64, 128)

_Layout = dict[str, Vector]
Indices = NDArray[np.intp]


def _up(values: Vector, multiple: float) -> Vector:
    return np.ceil(values / multiple) * multiple


def _modes(cin: Vector, s: Shapes, width: Vector) -> Iterator[tuple[float, Vector, Vector]]:
    """Mode by mode: blocks, cycles per pixel and descriptor (infinite if its weights do not fit), lines held."""
    for mode, overhead in enumerate(MODE_CYCLES):
        blocks = 2.0**mode
        padded = _up(cin, blocks)
        weights = padded / blocks * s.kernel**2
        lines = np.floor(LINE_BUFFER_BYTES / (padded * _up(2 * width, 16)))
        yield blocks, np.where(weights <= BLOCK_WEIGHTS, weights + overhead, np.inf), lines


def _best_mode(cin: Vector, cout: Vector, s: Shapes, width: Vector, height: Vector) -> tuple[Vector, Vector]:
    """Cycles per pixel (infinite where no mode can work) and descriptors of the mode that the compiler takes."""
    needed = np.minimum(s.kernel + s.stride + 2 + (width <= 8), height)
    cycles, descriptors = np.full_like(cin, np.inf), np.ones_like(cin)
    for blocks, each, lines in _modes(cin, s, width):
        count = np.ceil(cout / np.minimum(256 / blocks, _up(cout, 8)))
        cost = np.where(lines >= needed, each * count, np.inf)
        better = (cost < cycles) | ((cost == cycles) & (count < descriptors))
        cycles, descriptors = np.where(better, cost, cycles), np.where(better, count, descriptors)
    return cycles, descriptors


def _most_lines(cin: Vector, s: Shapes, width: Vector) -> Vector:
    """Lines that the buffers hold in the best mode whose weights fit, at least 1."""
    most = np.ones_like(cin)
    for _, each, lines in _modes(cin, s, width):
        most = np.where(np.isfinite(each), np.maximum(lines, most), most)
    return most


def _cut(size: Vector, s: Shapes, part: Vector) -> tuple[Vector, Vector, Vector]:
    """Tiles along a side, lines computed in all of them, lines of one, if ``part`` input lines go into each."""
    out = np.ceil(size / s.stride)
    border = 2 * np.floor(np.floor(s.kernel / 2) / s.stride)
    lines = np.minimum(np.floor((part - 1) / s.stride) + 1, out)
    step = lines - border
    count = np.where(step >= 1, np.maximum(np.ceil((out - border) / np.maximum(step, 1)), 2), np.inf)
    count = np.where(lines >= out, 1, count)
    return count, out + np.where(count > 1, count - 1, 0) * border, lines


def _cut_map(s: Shapes, cin: Vector, columns: int) -> _Layout:
    """The fewest tiles of a map whose rows are cut into ``columns``; ``cycles`` is infinite where none works."""
    part = np.ceil(s.w / columns)
    across, width, longest = _cut(s.w, s, part)
    fed = np.where(across > 1, part, s.w)
    rows = np.floor(TILE_BYTES / (2 * s.cout * _up(longest, 8)))
    cuts = np.where(rows < np.ceil(s.h / s.stride), np.ceil(s.h / np.maximum(rows * s.stride, 1)), 1)
    cycles, _ = _best_mode(cin, s.cout, s, fed, np.ceil(s.h / cuts))
    # A tile of so few rows that the buffers hold them all works where a full window of lines does not fit.
    low = np.ceil(s.h / _most_lines(cin, s, fed))
    cuts = np.where(np.isinf(cycles), np.maximum(cuts, low), cuts)
    piece = np.ceil(s.h / cuts)
    down, height, _ = _cut(s.h, s, piece)
    cycles, descriptors = _best_mode(cin, s.cout, s, fed, np.where(down > 1, piece, s.h))
    works = (
        (rows >= 1) & (cuts <= MAX_CUTS) & ((cuts == 1) | (piece >= s.kernel)) & np.isfinite(across * down)
    )
    return {
        "cycles": np.where(works, cycles, np.inf),
        "descriptors": descriptors,
        "tiles": np.where(works, across * down, 1),
        "pixels": np.where(works, width * height, 1),
    }


def _select(s: Shapes, index: Indices) -> Shapes:
    return Shapes(*(getattr(s, field.name)[index] for field in fields(s)))


def _best_cut(s: Shapes) -> _Layout:
    """What the compiler takes: the cut that is cheapest by its own measure, tiles x cycles + elements summed."""
    best = {name: np.ones_like(s.h) for name in ("cycles", "descriptors", "tiles", "pixels", "parts")}
    least = np.full_like(s.h, np.inf)
    fits = (s.kernel <= MAX_KERNEL) & (s.stride <= MAX_STRIDE)
    output = s.positions / s.batch * s.cout
    for parts in range(1, MAX_CUTS + 1):
        for columns in range(1, MAX_CUTS + 1):
            # More parts cannot win once their sums alone cost more.
            worth = fits & ((parts - 1) * output < least)
            index = np.flatnonzero(worth & ((columns == 1) | (np.ceil(s.w / columns) >= MIN_WIDTH)))
            if not index.size:
                break
            part = _select(s, index)
            found = _cut_map(part, np.ceil(part.cin / parts), columns)
            cost = found["tiles"] * found["cycles"] * parts + (parts - 1) * found["pixels"] * part.cout
            better = cost < least[index]
            least[index[better]] = cost[better]
            for name, value in {**found, "parts": np.full_like(cost, parts)}.items():
                best[name][index[better]] = value[better]
    return {**best, "engine": np.isfinite(least)}


def cuts(kernels: Sequence[Kernel]) -> list[tuple[int, int, int]]:
    """Parts of the input channels, tiles of the map and descriptors of every convolution; 0, 0, 0 in software."""
    best = _best_cut(Shapes.of(kernels))
    columns = np.stack([best[name] * best["engine"] for name in ("parts", "tiles", "descriptors")], axis=1)
    return [(int(parts), int(tiles), int(count)) for parts, tiles, count in columns]


def _padded(s: Shapes) -> Vector:
    """Images that software pads first, which the engine leaves to it where a stride makes the border one-sided."""
    return s.batch * ((s.stride > 1) & (s.kernel > s.stride))


@lru_cache(maxsize=4)
def _layout_of(columns: bytes) -> _Layout:
    s = Shapes(*np.frombuffer(columns).reshape(8, -1))
    best = _best_cut(s)
    pixels = np.where(best["engine"], s.batch * best["pixels"] * best["parts"], s.positions)
    descriptors = s.batch * best["descriptors"] * best["parts"] * best["tiles"]
    macs = s.positions * s.depth * s.cout
    return {
        "cycles": np.where(
            best["engine"],
            pixels * best["cycles"] + PADDING_CYCLES * s.cin * _padded(s),
            macs / SOFTWARE_MACS_PER_CYCLE,
        ),
        "partial_descriptors": descriptors * ((best["parts"] > 1) & (best["tiles"] > 1)),
        "weights": s.depth * s.cout * best["tiles"],
        "output": pixels * _up(s.cout, 8),
        "summed": s.positions * s.cout * (best["parts"] - 1),
    }


@lru_cache(maxsize=4)
def _depthwise_layout_of(columns: bytes) -> _Layout:
    s = Shapes(*np.frombuffer(columns).reshape(8, -1))
    each, size = np.full_like(s.h, np.inf), np.ones_like(s.h)
    for tile in DEPTHWISE_TILES:
        full = np.full_like(s.h, tile)
        cost = _best_mode(full, full, s, s.w, s.h)[0] / tile
        each, size = np.where(cost < each, cost, each), np.where(cost < each, tile, size)
    tiles = np.maximum(np.ceil(s.cin / size), np.minimum(s.cin, 2))
    channels = np.ceil(s.cin / tiles)
    cycles = s.positions * tiles * _best_mode(channels, channels, s, s.w, s.h)[0]
    # Beyond the engine's sizes nothing was measured: a tile per channel, which costs as much as any layout.
    beyond = s.positions * s.cin * (s.kernel**2 + MODE_CYCLES[-1])
    cycles = np.where(np.isfinite(cycles), cycles, beyond) + PADDING_CYCLES * s.cin * _padded(s)
    return {
        "cycles": cycles,
        "tiles": s.batch * tiles,
    }


def _part(layout: Callable[[bytes], _Layout], name: str) -> Term:
    """One figure of the layout of many shapes; all figures of the same shapes are worked out once."""
    return lambda s: layout(np.stack([getattr(s, field.name) for field in fields(s)]).tobytes())[name]


_CONV = ("cycles", "partial_descriptors", "weights", "output", "summed")
_DWCONV = ("cycles", "tiles")

ENGINE_CYCLES = "engine_cycles"
TERMS: dict[str, dict[str, Term]] = {
    "conv": {f"engine_{name}": _part(_layout_of, name) for name in _CONV} | {"padded": _padded},
    "dwconv": {f"engine_{name}": _part(_depthwise_layout_of, name) for name in _DWCONV}
    | {"calls": lambda s: np.ones_like(s.h)},
    "fc": {"engine_weights": lambda s: s.cin * s.cout},
}
"""Terms by operator; no kernel takes fewer ``ENGINE_CYCLES`` than its products at ``MACS_PER_CYCLE``."""
