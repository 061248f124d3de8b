"""How far measurements scatter around predictions, from networks that each fit did not see."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quadnas.calibrate.design import Design
from quadnas.calibrate.measured import MeasuredNetwork

TAILS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
LEVELS = (*TAILS, 0.5, *(round(1 - tail, 4) for tail in reversed(TAILS)))

Values = NDArray[np.float64]


def error_quantiles(
    design: Design, networks: Sequence[MeasuredNetwork], among: NDArray[np.bool_]
) -> tuple[tuple[float, float], ...]:
    """(level, measured/predicted), every network ``among`` predicted by a fit to the others without its fold."""
    folds = np.array([network.fold for network in networks])
    ratios = np.ones(len(networks))
    for fold in np.unique(folds[among]):
        theirs = among & (folds == fold)
        arrays = design.solve(among & ~theirs)
        ratios[theirs] = (design.measured_ms / design.predict_ms(arrays))[theirs]
    quantiles = np.quantile(ratios[among], LEVELS)
    return tuple((level, round(ratio, 4)) for level, ratio in zip(LEVELS, quantiles.tolist(), strict=True))
