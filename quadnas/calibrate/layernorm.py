"""What LayerNorm costs on a phone CPU, from measured FFN blocks that contain it."""

import gzip
import json
import re
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quadnas.errors import ConfigError, DataError
from quadnas.latency.card import SurrogateRule
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import LatencyModel

# On smaller maps and with more channels the convolutions' curvature over the ratio drowns the intercept.
MIN_SIDE = 8
MAX_CHANNELS = 128
MIN_RATIOS = 3

_BLOCK = re.compile(r"transffn_(\d+)_(\d+)_(\d+)_hard_swish_ln")
Values = NDArray[np.float64]


def layernorm_rule(model: LatencyModel, blocks: Path) -> SurrogateRule:
    """The stand-in for LayerNorm, as a multiple of ``add`` on the same shape.

    A block (LayerNorm, 1x1 convolution to ratio x C, hard swish, 1x1 convolution back, residual sum) is
    linear in its ratio: the slope is the convolutions and the activation, which the model prices too, and so
    tells how much slower its device is than the blocks' one; the intercept is LayerNorm plus the sum. The
    factor is the median over the shapes, the error half their interquartile range. Source: the TFLite block
    table ``pixel4_lut_ln_v3`` of nn-Meter. Raises ConfigError or DataError for a file that is not such a table.
    """
    factors = []
    for (side, channels), by_ratio in _read(blocks).items():
        if side < MIN_SIDE or channels > MAX_CHANNELS or len(by_ratio) < MIN_RATIOS:
            continue
        ratios = sorted(by_ratio)
        slope_ms, intercept_ms = np.polyfit(ratios, [by_ratio[ratio] for ratio in ratios], 1)
        model_slope_ms = np.polyfit(ratios, [_ffn_ms(model, side, channels, ratio) for ratio in ratios], 1)[0]
        sum_ms, unit_ms = (
            _total_ms(model, [Kernel("add", side, side, inputs, channels)])
            for inputs in ((channels, channels), (channels,))
        )
        factors.append((intercept_ms * model_slope_ms / slope_ms - sum_ms) / unit_ms)
    if not factors:
        raise DataError(f"{blocks}: holds no FFN blocks of {MIN_RATIOS} ratios on maps of {MIN_SIDE} or more")
    low, middle, high = np.percentile(factors, (25, 50, 75))
    return SurrogateRule(
        reference="add",
        factor=round(float(middle), 2),
        error=round(float((high - low) / 2 / middle), 2),
        reason=f"intercept over the ratio of {len(factors)} FFN blocks with LayerNorm measured on a Pixel 4",
    )


def _ffn_ms(model: LatencyModel, side: int, channels: int, ratio: int) -> float:
    wide = ratio * channels
    return _total_ms(
        model,
        [
            Kernel("conv", side, side, (channels,), wide),
            Kernel("hswish", side, side, (wide,), wide),
            Kernel("conv", side, side, (wide,), channels),
        ],
    )


def _total_ms(model: LatencyModel, kernels: list[Kernel]) -> float:
    return sum(price.latency_ms or 0.0 for price in model.price(kernels))


def _read(path: Path) -> dict[tuple[int, int], dict[int, float]]:
    """Latency in ms by ratio, by (side, channels)."""
    try:
        table = json.loads(gzip.decompress(path.read_bytes()))
        found: dict[tuple[int, int], dict[int, float]] = {}
        for key, latency_ms in table.items():
            if match := _BLOCK.fullmatch(key):
                side, channels, ratio = map(int, match.groups())
                found.setdefault((side, channels), {})[ratio] = float(latency_ms)
    except FileNotFoundError:
        raise ConfigError(f"no file {path}; give the path of a block table (.json.gz)") from None
    except (OSError, EOFError, zlib.error, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a block table: {error}") from None
    return found
