"""The problem a search solves: a space, a device and a limit, checked to be solvable before any training."""

import decimal
import math
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from quadnas.errors import LimitError, QuadnasError
from quadnas.latency.kernels import Kernel
from quadnas.latency.measurements import load_corrected
from quadnas.latency.model import Estimate, LatencyModel, Price, estimate, upper_ms
from quadnas.latency.table import LatencyTable, build_table
from quadnas.network import kernels_of, load_space, position_kernels
from quadnas.resources import available
from quadnas.search.objective import check_latency_loss
from quadnas.search.settings import SearchSettings
from quadnas.space.search_space import SearchSpace


@dataclass(frozen=True)
class Problem:
    """``bounds`` prices candidates at what is held to ``limit_ms``: prediction plus the asked-for error.

    A sum of it is never below ``bound_ms``, the bound of a whole network, which decides and is stated in the end
    (``Estimate.upper_ms`` of a winner). ``limit_ms`` has the margin taken off; ``unlimited`` means that every
    architecture is within it.
    """

    settings: SearchSettings
    space: SearchSpace
    classes: int
    model: LatencyModel
    bounds: LatencyTable
    limit_ms: float

    @property
    def unlimited(self) -> bool:
        """Whether the limit does not bind anywhere in the space."""
        return self.bounds.range_ms[1] <= self.limit_ms

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Labels of the candidates that the device's model cannot price: the search leaves them out."""
        pairs = zip(self.space.slots, self.bounds.slots_ms, strict=True)
        prices = (price for slot, row in pairs for price in zip(slot.labels, row, strict=True))
        return tuple(dict.fromkeys(label for label, cost_ms in prices if math.isinf(cost_ms)))

    def kernels(self, choices: Sequence[int]) -> list[Kernel]:
        """The fused kernels of a whole architecture on the device, at deployment size."""
        layers = self.space.layers(choices, self.classes)
        return kernels_of(layers, self.settings.input_size, self.model)

    def estimate(self, choices: Sequence[int]) -> Estimate:
        """The predicted latency of a whole architecture."""
        return estimate(self.model, self.kernels(choices))

    def bound_ms(self, choices: Sequence[int]) -> float:
        """What is held to the limit, for a whole architecture."""
        return self.estimate(choices).upper_ms(self.settings.confidence, winner=True)


def price_space(
    space: SearchSpace, model: LatencyModel, classes: int, input_size: int, confidence: float | None = None
) -> LatencyTable:
    """The latency table of a space on a device."""

    def cost_ms(price: Price) -> float:
        return upper_ms(model, price, confidence)

    fixed, slots = position_kernels(space, classes, input_size, model)
    return build_table(model, fixed, slots, cost_ms)


def sample_latencies_ms(table: LatencyTable, count: int, seed: int = 0) -> list[float]:
    """Latencies of ``count`` architectures drawn uniformly among those that have a price, ascending."""
    generator = random.Random(seed)  # noqa: S311
    priced = [[ms for ms in row if math.isfinite(ms)] for row in table.slots_ms]
    return sorted(math.fsum((table.fixed_ms, *map(generator.choice, priced))) for _ in range(count))


def pose(settings: SearchSettings, classes: int) -> Problem:
    """Load space and device, price every candidate, and check that the limit can be met.

    Raises LimitError naming the feasible range and the spaces that reach the limit; ConfigError; DataError;
    CoverageError.
    """
    space = load_space(settings.space)
    model = load_corrected(settings.device, settings.batch)
    bounds = price_space(space, model, classes, settings.input_size, settings.confidence)
    limit_ms = settings.max_latency_ms * (1 - settings.latency_margin)
    low, high = bounds.range_ms
    if limit_ms < low:
        raise LimitError(
            f"no network of {space.name!r} runs within {limit_ms:g} ms on {model.card.device} at "
            f"{settings.input_size}x{settings.input_size}: the feasible range is {_rounded_up(low)} to "
            f"{high:.4g} ms{_spaces_within_reach(settings, model, classes, limit_ms)}; raise --max-latency, lower "
            "--input-size, or choose another --space"
        )
    check_latency_loss(settings.latency_loss, low)
    return Problem(settings, space, classes, model, bounds, limit_ms)


def _rounded_up(latency_ms: float) -> str:
    """Four digits that, given as a limit, can be met."""
    context = decimal.Context(prec=4, rounding=decimal.ROUND_CEILING)
    return f"{context.create_decimal_from_float(latency_ms):f}"


def _spaces_within_reach(settings: SearchSettings, model: LatencyModel, classes: int, limit_ms: float) -> str:
    reach = []
    for name in available("search_spaces"):
        with suppress(QuadnasError):  # a broken file of the user's does not hide the answer
            table = price_space(load_space(name), model, classes, settings.input_size, settings.confidence)
            low, high = table.range_ms
            if low <= limit_ms:
                reach.append(f"{name} ({low:.3g} to {high:.3g} ms)")
    return f"; within reach: {', '.join(reach)}" if reach else ""


def percentile(latencies_ms: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0..1) of the latencies lie."""
    return float(np.quantile(latencies_ms, share))
