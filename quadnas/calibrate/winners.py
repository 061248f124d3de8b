"""How far a searched network is underestimated: searches against models that could have been found instead."""

import math
from abc import abstractmethod
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
from quadnas.latency.table import CostTable, build_table
from quadnas.network import position_kernels
from quadnas.search.constraint import knapsack
from quadnas.space.search_space import SearchSpace

RESAMPLES = 60
SEARCHES = 3  # of each resample
UNSELECTED = 50  # random networks of each resample
CLASSES, INPUT_SIZE = 1000, 224

Values = NDArray[np.float64]
Layout = tuple[Sequence[Kernel], Sequence[Sequence[Sequence[Kernel]]]]


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


def winners_in(
    space: SearchSpace, model: LatencyModel, resampled: Sequence[Arrays], kernel_error: float
) -> Winners | None:
    """``find_winners`` in a space at deployment size; None where the model cannot price the space."""
    try:
        layout = position_kernels(space, CLASSES, INPUT_SIZE, model)
        return find_winners(space.name, layout, model, resampled, kernel_error)
    except CoverageError:
        return None


def find_winners(
    space: str, layout: Layout, model: LatencyModel, resampled: Sequence[Arrays], kernel_error: float
) -> Winners:
    """Search against every resampled model, and price what it finds by ``model``.

    The fit differs from the device as a refit differs from the fit: so the price of a winner by ``model``, over
    that by the refitted model which chose it, is what measured/predicted of winners will be. Scores are random,
    and limits lie between the fastest network and the best-scored one, so that they bind. What no refit of the
    same form shows, that every shape of a kernel takes its own time, by a draw of ``kernel_error``, no search
    can pick, since no model knows it: it scatters the ratios but does not move their mean. ``layout`` is (fixed
    kernels, [slot][candidate] -> kernels) of the space of that name. Raises CoverageError if there is no price
    for it.
    """
    generator = np.random.default_rng(0)
    truth = _table(model, layout)
    covered, guessed = _Tally(truth, generator), _Tally(truth, generator)
    for arrays in resampled:
        refitted = type(model)(model.card, arrays, model.batch)
        covered.search(
            _table(refitted, layout), _table(_OtherKernels(model, kernel_error, generator), layout)
        )
        guessed.search(_table(_OtherStandIns(refitted, generator), layout), truth)
    return Winners(
        space=space,
        searches=len(covered.ratios),
        bias=covered.bias,
        surrogate_bias=guessed.bias,
        quantiles=quantiles(covered.ratios),
    )


class _Disturbed(LatencyModel):
    """A model whose prices are off by log-normal draws."""

    def __init__(self, model: LatencyModel, generator: np.random.Generator) -> None:
        super().__init__(model.card, model.arrays, model.batch)
        self._model = model
        self._generator = generator
        self._draws: dict[object, float] = {}

    def price(self, kernels: Sequence[Kernel]) -> list[Price]:
        """The model's prices, disturbed."""
        return [
            price
            if price.latency_ms is None
            else replace(price, latency_ms=price.latency_ms * self._factor(kernel, price))
            for kernel, price in zip(kernels, self._model.price(kernels), strict=True)
        ]

    @abstractmethod
    def _factor(self, kernel: Kernel, price: Price) -> float: ...

    def _drawn(self, of: object) -> float:
        if of not in self._draws:
            self._draws[of] = float(self._generator.standard_normal())
        return self._draws[of]


class _OtherKernels(_Disturbed):
    """What a device may really take: every shape has a draw of its own, of mean 1."""

    def __init__(self, model: LatencyModel, error: float, generator: np.random.Generator) -> None:
        super().__init__(model, generator)
        self._sigma = math.log1p(error)

    def _factor(self, kernel: Kernel, price: Price) -> float:
        return math.exp(self._sigma * self._drawn(kernel) - self._sigma**2 / 2)


class _OtherStandIns(_Disturbed):
    """What might be believed: every operator's stand-ins err by a draw; true/believed price has the mean 1."""

    def _factor(self, kernel: Kernel, price: Price) -> float:
        sigma = math.log1p(price.surrogate_error)
        return math.exp(sigma * self._drawn(words(kernel.op)[0]) + sigma**2 / 2)


class _Tally:
    """True price over believed price of searched networks, beside that of networks that nobody selected."""

    def __init__(self, truth: CostTable, generator: np.random.Generator) -> None:
        self._truth = truth
        self._generator = generator
        self.ratios: list[float] = []
        self._selected: list[float] = []

    @property
    def bias(self) -> float:
        """How much dearer winners are than unselected networks of the same believed prices, on average."""
        return round(max(1.0, fmean(self._selected)), 4)

    def search(self, believed: CostTable, scattered: CostTable) -> None:
        """Add some searches of one table; ``scattered`` is the truth as ``ratios`` sees it."""
        priced = believed.priced.numpy()
        anything = self._generator.standard_normal((UNSELECTED, *priced.shape))
        picks = np.where(priced, anything, -np.inf).argmax(axis=2).tolist()
        unselected = fmean(self._truth.of(choices) / believed.of(choices) for choices in picks)
        for _ in range(SEARCHES):
            scores = self._generator.standard_normal(priced.shape)
            best_ms = believed.of(np.where(priced, scores, -np.inf).argmax(axis=1).tolist())
            fastest_ms = believed.range[0]
            limit_ms = fastest_ms + float(self._generator.uniform(0.1, 0.9)) * (best_ms - fastest_ms)
            choices = knapsack(scores, believed, limit_ms)
            believed_ms = believed.of(choices)
            self.ratios.append(scattered.of(choices) / believed_ms)
            self._selected.append(self._truth.of(choices) / believed_ms / unselected)


def _table(model: LatencyModel, layout: Layout) -> CostTable:
    return build_table(model, *layout, lambda price: price.latency_ms or 0.0)
