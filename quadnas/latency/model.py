"""The contract of a latency model: kernels in, milliseconds with their coverage out."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from quadnas.errors import ConfigError
from quadnas.latency.card import DeviceCard
from quadnas.latency.fusion import fuse
from quadnas.latency.kernels import Kernel, Operator
from quadnas.registry import Registry

Arrays = Mapping[str, NDArray[np.float64]]


class Coverage(StrEnum):
    """How well a price is founded."""

    EXACT = "exact"
    SURROGATE = "surrogate"
    UNCOVERED = "uncovered"


@dataclass(frozen=True, slots=True)
class Price:
    """What one kernel costs; ``latency_ms`` is None if and only if the kernel is uncovered.

    ``reason`` says why a price is not exact; ``surrogate_error`` is its relative one-sigma error.
    """

    latency_ms: float | None
    coverage: Coverage
    reason: str = ""
    surrogate_error: float = 0.0


class LatencyModel(ABC):
    """Prices kernels on one device at one batch size; a network costs the sum over its kernels.

    A back-end is one file in ``quadnas/latency/backends`` that registers a subclass. Its constructor checks
    the names, shapes and values of ``arrays`` and raises DataError. Every price is finite and positive, no
    kernel is faster than the device's peak, and none gets cheaper with more channels, a larger map or a
    larger kernel (``quadnas.testing.latency`` checks that).
    """

    def __init__(self, card: DeviceCard, arrays: Arrays, batch: int) -> None:
        self.card = card
        self.arrays = arrays
        self.batch = batch

    def kernels(self, operators: Sequence[Operator]) -> list[Kernel]:
        """The kernels that this device makes of unfused operators (of any batch), at the model's batch size."""
        return [replace(kernel, batch=self.batch) for kernel in fuse(operators, self.card.fusion)]

    @abstractmethod
    def price(self, kernels: Sequence[Kernel]) -> list[Price]:
        """The price of every kernel, in order; raises ValueError if one is not of the model's batch size."""


BACK_ENDS: Registry[type[LatencyModel]] = Registry(
    "latency back-end", "quadnas.latency.backends", "quadnas.latency_back_ends"
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The prices of all kernels of one network."""

    kernels: tuple[Kernel, ...]
    prices: tuple[Price, ...]

    @property
    def latency_ms(self) -> float | None:
        """The sum over all kernels, the same in any order; None if a kernel is uncovered."""
        total_ms = self._sum_ms(*Coverage)
        return None if any(price.latency_ms is None for price in self.prices) else total_ms

    @property
    def shares(self) -> dict[str, float]:
        """Shares of ``exact``, ``surrogate`` and ``uncovered``; they add up to 1.

        Shares are of predicted ms. An uncovered kernel has none, so it stands with its share of the number
        of kernels, and the other two divide the rest by their ms.
        """
        count = max(len(self.prices), 1)
        uncovered = sum(price.coverage is Coverage.UNCOVERED for price in self.prices) / count
        surrogate_ms = self._sum_ms(Coverage.SURROGATE)
        total_ms = self._sum_ms(Coverage.EXACT, Coverage.SURROGATE)
        surrogate = (1 - uncovered) * surrogate_ms / total_ms if total_ms else 0.0
        return {"exact": 1 - uncovered - surrogate, "surrogate": surrogate, "uncovered": uncovered}

    def _sum_ms(self, *coverage: Coverage) -> float:
        return math.fsum(price.latency_ms or 0.0 for price in self.prices if price.coverage in coverage)


def estimate(model: LatencyModel, kernels: Sequence[Kernel]) -> Estimate:
    """Price one network, given as its kernels at the model's batch size."""
    return Estimate(tuple(kernels), tuple(model.price(kernels)))


def upper_ms(model: LatencyModel, price: Price, confidence: float | None) -> float:
    """Upper price of one kernel in ms, additive over kernels; ``confidence`` None gives the price itself.

    ms * (1 + e + z * s): e is how far measured networks exceeded their prediction at that confidence (the
    card's held-out quantile, at least 0), s the error of a surrogate, z the normal quantile. An uncovered
    kernel costs infinity. Raises ConfigError for a confidence outside the card's quantiles.
    """
    if price.latency_ms is None:
        return math.inf
    if confidence is None:
        return price.latency_ms
    levels, ratios = zip(*model.card.error_quantiles, strict=True)
    if not levels[0] <= confidence <= levels[-1]:
        raise ConfigError(
            f"a confidence lies between {levels[0]} and {levels[-1]}, the quantiles that device "
            f"{model.card.device!r} was checked for, not {confidence}; for example --confidence 0.9"
        )
    excess = max(float(np.interp(confidence, levels, ratios)) - 1, 0.0)
    return price.latency_ms * (1 + excess + NormalDist().inv_cdf(confidence) * price.surrogate_error)
