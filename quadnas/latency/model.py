"""The contract of a latency model: kernels in, milliseconds with their coverage out."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from numpy.typing import NDArray

from quadnas.errors import CoverageError, DataError
from quadnas.latency.card import DeviceCard
from quadnas.latency.fusion import fuse
from quadnas.latency.kernels import Kernel, Operator
from quadnas.latency.names import words
from quadnas.latency.spread import UNSCALED, Scale, Spread
from quadnas.registry import Registry

Arrays = Mapping[str, NDArray[Any]]

_ABOVE_ROUNDING = 1 + 1e-12


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
    larger kernel (``quadnas.testing.latency`` checks that). ``scale`` is what is already in the prices of the
    user's own measurements (``quadnas.latency.measurements``).
    """

    scale: Scale = UNSCALED

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
    """The prices of all kernels of one network on the device of ``card``."""

    kernels: tuple[Kernel, ...]
    prices: tuple[Price, ...]
    card: DeviceCard
    scale: Scale = UNSCALED

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

    @property
    def calibrated(self) -> bool:
        """Whether the interval was checked by measurement: nothing is priced by a stand-in or extrapolated."""
        return all(price.coverage is Coverage.EXACT for price in self.prices)

    @property
    def surrogate_error(self) -> float:
        """Relative one-sigma error of the total from all surrogate prices.

        Kernels of one operator err together, since they share its stand-in; different operators independently,
        so their errors in ms add in quadrature.
        """
        errors_ms: dict[str, list[float]] = {}
        for kernel, price in zip(self.kernels, self.prices, strict=True):
            if price.surrogate_error and price.latency_ms is not None:
                op = words(kernel.op)[0]
                errors_ms.setdefault(op, []).append(price.latency_ms * price.surrogate_error)
        return math.hypot(*map(math.fsum, errors_ms.values())) / max(self._sum_ms(*Coverage), 1e-300)

    def interval_ms(self, confidence: float = 0.9, *, winner: bool = False) -> tuple[float, float]:
        """(low, high) in ms between which a measurement lies with probability ``confidence``.

        The ratio measured/predicted has a spread over networks (the card's quantiles, from networks that the
        fit did not see) and the error of the surrogate prices; both are independent and add in quadrature, as
        factors (1 + e) above the median and 1/(1 + e) below. A ``winner`` of a search is dearer by the card's
        bias of winners, with its spread. Raises ConfigError for a confidence beyond the card's quantiles,
        CoverageError if there is no total.
        """
        tail = round((1 - confidence) / 2, 12)  # 0.05, not a bit less
        return self._quantile_ms(tail, winner), self._quantile_ms(1 - tail, winner)

    def upper_ms(self, confidence: float | None, *, winner: bool = False) -> float:
        """The latency in ms that is kept with probability ``confidence``, never below the prediction.

        The upper end of a one-sided interval, see ``interval_ms``; None gives the prediction itself. Raises as
        that does.
        """
        total_ms = self._total_ms()
        return total_ms if confidence is None else max(total_ms, self._quantile_ms(confidence, winner))

    def _quantile_ms(self, level: float, winner: bool) -> float:
        spread = Spread.of(self.card, level, self.scale)
        bias = spread.bias(self.calibrated) if winner else 1.0
        errors = (spread.z * self.surrogate_error, spread.winners if winner else 0.0)
        return self._total_ms() * bias * spread.ratio(*errors)

    def _total_ms(self) -> float:
        if (total_ms := self.latency_ms) is None:
            reasons = {price.reason for price in self.prices if price.latency_ms is None}
            raise CoverageError(f"no total without a price for every kernel: {'; '.join(sorted(reasons))}")
        return total_ms

    def _sum_ms(self, *coverage: Coverage) -> float:
        return math.fsum(price.latency_ms or 0.0 for price in self.prices if price.coverage in coverage)


def estimate(model: LatencyModel, kernels: Sequence[Kernel]) -> Estimate:
    """Price one network, given as its kernels at the model's batch size; raises as ``checked_prices``."""
    return Estimate(tuple(kernels), tuple(checked_prices(model, kernels)), model.card, model.scale)


def checked_prices(model: LatencyModel, kernels: Sequence[Kernel]) -> list[Price]:
    """The model's prices; raises DataError if it prices a kernel at NaN, infinity, zero or below."""
    prices = model.price(kernels)
    for kernel, price in zip(kernels, prices, strict=True):
        if price.latency_ms is not None and not 0 < price.latency_ms < math.inf:
            raise DataError(
                f"device {model.card.device!r} prices {kernel} at {price.latency_ms} ms; "
                "a latency is a positive number: repair or refit its predictor"
            )
    return prices


def upper_ms(model: LatencyModel, price: Price, confidence: float | None) -> float:
    """Upper price in ms of one kernel of a searched network; ``confidence`` None gives the price itself.

    Additive over kernels, for a knapsack: all surrogate errors are taken as one, so the sum over a network is
    never below its ``Estimate.upper_ms(confidence, winner=True)``, which is what is held to a limit in the end.
    An uncovered kernel costs infinity. Raises ConfigError for a confidence beyond the card's quantiles.
    """
    if price.latency_ms is None:
        return math.inf
    if confidence is None:
        return price.latency_ms
    spread = Spread.of(model.card, confidence, model.scale)
    bias = max(spread.bias(calibrated=True), spread.bias(calibrated=False))
    ratio = spread.ratio(0.0, spread.winners) + spread.z * price.surrogate_error
    return price.latency_ms * max(1.0, bias * ratio) * _ABOVE_ROUNDING
