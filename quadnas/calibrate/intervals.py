"""How far measurements scatter around predictions, from networks that each fit did not see."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quadnas.calibrate.design import Design
from quadnas.calibrate.measured import MeasuredNetwork
from quadnas.latency.model import Estimate

TAILS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
LEVELS = (*TAILS, 0.5, *(round(1 - tail, 4) for tail in reversed(TAILS)))

Values = NDArray[np.float64]
Quantiles = tuple[tuple[float, float], ...]


def unseen_ratios(
    design: Design,
    networks: Sequence[MeasuredNetwork],
    among: NDArray[np.bool_],
    importance: Values | None = None,
) -> Values:
    """Measured/predicted of the networks ``among``, each predicted by a fit to the others without its fold.

    ``importance`` (networks,) is as in ``Design.solve``.
    """
    folds = np.array([network.fold for network in networks])
    ratios = np.ones(len(networks))
    for fold in np.unique(folds[among]):
        theirs = among & (folds == fold)
        arrays = design.solve(among & ~theirs, importance)
        ratios[theirs] = (design.measured_ms / design.predict_ms(arrays))[theirs]
    return ratios[among]


def quantiles(ratios: Values | Sequence[float]) -> Quantiles:
    """(level, ratio) as a card holds them."""
    found = np.quantile(ratios, LEVELS).tolist()
    return tuple((level, round(ratio, 4)) for level, ratio in zip(LEVELS, found, strict=True))


def kernel_error(found: Sequence[Estimate], ratios: Values) -> float:
    """The relative one-sigma error of the price of a single kernel, at most.

    If kernels of different shapes err independently, a network errs by that times the root of the summed
    squares of their shares; all of the scatter of ``ratios`` (half of its central 68 %) is taken as theirs,
    none as the measurement's.
    """
    squares = []
    for one in found:
        shares: dict[object, float] = {}
        for kernel, price in zip(one.kernels, one.prices, strict=True):
            shares[kernel] = shares.get(kernel, 0.0) + (price.latency_ms or 0.0)
        total_ms = math.fsum(shares.values())
        squares.append(math.fsum((ms / total_ms) ** 2 for ms in shares.values()))
    low, high = np.quantile(np.log(ratios), (0.16, 0.84)).tolist()
    return float((high - low) / 2 / math.sqrt(np.mean(squares)))
