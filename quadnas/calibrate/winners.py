"""How far a searched network is underestimated: searches against models that could have been found instead."""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from quadnas.calibrate.intervals import quantiles
from quadnas.calibrate.measured import MeasuredNetwork
from quadnas.errors import CoverageError
from quadnas.latency.card import Winners
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import Arrays, LatencyModel, Price
from quadnas.latency.names import words
from quadnas.latency.table import LatencyTable, build_table
from quadnas.network import position_kernels
from quadnas.search.constraint import knapsack
from quadnas.space.search_space import SearchSpace

RESAMPLES = 40
SEARCHES = 5  # of each resample
UNSELECTED = 50  # random networks of each resample
CLASSES, INPUT_SIZE = 1000, 224

Values = NDArray[np.float64]
Layout = tuple[list[Kernel], list[list[list[Kernel]]]]


def importances(networks: Sequence[MeasuredNetwork], count: int = RESAMPLES) -> list[Values]:
    """Weights (networks,) of ``count`` resamples of the measured networks, for ``Design.solve``.

    The Bayesian bootstrap (Rubin 1981) with exponential weights, over families and over the networks in them:
    networks of a family err together, so what another choice of families had taught is most of the error of a
    fit; and no operator loses all its networks, as in drawing with replacement.
    """
    families, index = np.unique([network.family for network in networks], return_inverse=True)
    generator = np.random.default_rng(0)
    return [
        generator.standard_exponential(len(families))[index] * generator.standard_exponential(len(networks))
        for _ in range(count)
    ]


def find_winners(
    model: LatencyModel, resampled: Sequence[Arrays], kernel_error: float, space: SearchSpace
) -> Winners | None:
    """Search ``space`` against every resampled model, and price what it finds by ``model``.

    The fit differs from the device as a refit differs from the fit, in what all kernels of an operator share;
    besides, every shape of a kernel is off by a draw of ``kernel_error``, which no refit of the same form shows.
    So a winner's price by ``model``, over that by the disturbed one that chose it, is what measured/predicted
    of winners will be. Scores are random, and limits lie between the fastest network and the best-scored one,
    so that they bind. None where the model cannot price the space.
    """
    generator = np.random.default_rng(0)
    layout = position_kernels(space, CLASSES, INPUT_SIZE, model)
    try:
        truth = _table(model, layout)
        truth.range_ms  # noqa: B018 (raises where a slot has no candidate with a price)
    except CoverageError:
        return None
    covered, guessed = _Tally(truth, generator), _Tally(truth, generator)
    for arrays in resampled:
        refitted = type(model)(model.card, arrays, model.batch)
        covered.search(_table(_Disturbed(refitted, kernel_error, generator, stand_ins=False), layout))
        guessed.search(_table(_Disturbed(refitted, kernel_error, generator, stand_ins=True), layout))
    return Winners(
        space=space.name,
        searches=len(covered.ratios),
        bias=covered.bias,
        surrogate_bias=guessed.bias,
        quantiles=quantiles(covered.ratios),
    )


class _Disturbed(LatencyModel):
    """A model whose kernels are off by log-normal draws, so that true/believed price has the mean 1.

    One draw for every kernel, with ``kernel_error``; with ``stand_ins``, one more for every operator that has
    surrogate prices, with their stated errors.
    """

    def __init__(
        self, model: LatencyModel, kernel_error: float, generator: np.random.Generator, *, stand_ins: bool
    ) -> None:
        super().__init__(model.card, model.arrays, model.batch)
        self._model = model
        self._kernel_error = kernel_error
        self._stand_ins = stand_ins
        self._generator = generator
        self._draws: dict[object, float] = {}

    def price(self, kernels: Sequence[Kernel]) -> list[Price]:
        """The model's prices, disturbed."""
        return [
            self._disturbed(kernel, price)
            for kernel, price in zip(kernels, self._model.price(kernels), strict=True)
        ]

    def _disturbed(self, kernel: Kernel, price: Price) -> Price:
        if price.latency_ms is None:
            return price
        factor = self._factor(kernel, self._kernel_error)
        if self._stand_ins and price.surrogate_error:
            factor *= self._factor(words(kernel.op)[0], price.surrogate_error)
        return replace(price, latency_ms=price.latency_ms * factor)

    def _factor(self, of: object, error: float) -> float:
        if of not in self._draws:
            self._draws[of] = float(self._generator.standard_normal())
        sigma = math.log1p(error)
        return math.exp(sigma * self._draws[of] + sigma**2 / 2)


class _Tally:
    """True price over believed price of searched networks, and of networks that nobody selected."""

    def __init__(self, truth: LatencyTable, generator: np.random.Generator) -> None:
        self._truth = truth
        self._generator = generator
        self.ratios: list[float] = []
        self._selected: list[float] = []

    @property
    def bias(self) -> float:
        """How much dearer winners are than unselected networks of the same disturbed model, on average."""
        return round(max(1.0, fmean(self._selected)), 4)

    def search(self, believed: LatencyTable) -> None:
        """Add some searches of one table."""
        priced = believed.priced.numpy()
        choices = [np.flatnonzero(row) for row in priced]
        unselected = fmean(
            self._ratio(believed, [int(self._generator.choice(row)) for row in choices])
            for _ in range(UNSELECTED)
        )
        for _ in range(SEARCHES):
            scores = self._generator.standard_normal(priced.shape)
            best_ms = believed.of(np.where(priced, scores, -np.inf).argmax(axis=1).tolist())
            fastest_ms = believed.range_ms[0]
            limit_ms = fastest_ms + float(self._generator.uniform(0.1, 0.9)) * (best_ms - fastest_ms)
            ratio = self._ratio(believed, knapsack(scores, believed, limit_ms))
            self.ratios.append(ratio)
            self._selected.append(ratio / unselected)

    def _ratio(self, believed: LatencyTable, choices: Sequence[int]) -> float:
        return self._truth.of(choices) / believed.of(choices)


def _table(model: LatencyModel, layout: Layout) -> LatencyTable:
    return build_table(model, *layout, lambda price: price.latency_ms or 0.0)
