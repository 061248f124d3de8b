"""The problem a search solves: a space and limits on devices and sizes, checked to be solvable before training."""

import math
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from quadnas.errors import ConfigError, LimitError, QuadnasError
from quadnas.latency.measurements import load_corrected
from quadnas.latency.model import Estimate, LatencyModel
from quadnas.latency.table import CostTable
from quadnas.network import load_space
from quadnas.resources import available
from quadnas.search.constraint import Limit
from quadnas.search.limits import (
    conflict,
    conflict_text,
    latency_limit,
    predicted,
    price_space,
    rounded_up,
    size_limits,
    with_common_prices,
)
from quadnas.search.objective import check_latency_loss
from quadnas.search.settings import SearchSettings
from quadnas.space.search_space import SearchSpace


@dataclass(frozen=True)
class Problem:
    """``limits``: first the latency on the device of each of ``models``, in order, then the limited sizes.

    All of them hold for the result; all price the same candidates. The first one is that of ``max_latency_ms``.
    """

    settings: SearchSettings
    space: SearchSpace
    classes: int
    models: tuple[LatencyModel, ...]
    limits: tuple[Limit, ...]

    @property
    def model(self) -> LatencyModel:
        """That of the first device."""
        return self.models[0]

    @property
    def bounds(self) -> CostTable:
        """Candidates priced at what is held to ``limit_ms``: prediction plus the asked-for error."""
        return self.limits[0].costs

    @property
    def limit_ms(self) -> float:
        """The limit on the first device, with the margin taken off."""
        return self.limits[0].value

    @property
    def priced(self) -> Tensor:
        """(slots, most candidates) bool: where there is a candidate that every limit can price."""
        return self.bounds.priced

    @property
    def unlimited(self) -> bool:
        """Whether no limit binds anywhere in the space."""
        return not any(limit.binds for limit in self.limits)

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Labels of the candidates that some device's model cannot price: the search leaves them out."""
        pairs = zip(self.space.slots, self.bounds.rows, strict=True)
        prices = (price for slot, row in pairs for price in zip(slot.labels, row, strict=True))
        return tuple(dict.fromkeys(label for label, cost_ms in prices if math.isinf(cost_ms)))

    def fits(self, choices: Sequence[int]) -> bool:
        """Whether a whole architecture is within every limit."""
        return all(limit.fits(choices) for limit in self.limits)

    @property
    def front(self) -> "tuple[Problem, ...]":
        """The problem under each of the limits on the first device that were asked for, the tightest first."""
        first, *others = self.limits
        points = []
        for limit_ms in sorted((*self.settings.tighter_limits_ms, self.settings.max_latency_ms)):
            settings = self.settings.model_copy(update={"max_latency_ms": limit_ms, "tighter_limits_ms": ()})
            tightened = replace(first, value=limit_ms * (1 - settings.latency_margin))
            points.append(replace(self, settings=settings, limits=(tightened, *others)))
        return tuple(points)

    def estimate(self, choices: Sequence[int], model: LatencyModel | None = None) -> Estimate:
        """The predicted latency of a whole architecture on the device of a model, by default the first."""
        return predicted(self.space, model or self.model, self.classes, self.settings.input_size, choices)

    def bound_ms(self, choices: Sequence[int]) -> float:
        """What is held to the limit on the first device, for a whole architecture."""
        return self.limits[0].whole(choices)


def sample_latencies_ms(table: CostTable, count: int, seed: int = 0) -> list[float]:
    """Latencies of ``count`` architectures drawn uniformly among those that have a price, ascending."""
    generator = random.Random(seed)  # noqa: S311
    priced = [[ms for ms in row if math.isfinite(ms)] for row in table.rows]
    return sorted(math.fsum((table.fixed, *map(generator.choice, priced))) for _ in range(count))


def pose(settings: SearchSettings, classes: int) -> Problem:
    """Load space and devices, price every candidate, and check that all limits can be met together.

    Raises LimitError naming the feasible range and the spaces that reach the limit, or the limits that exclude
    each other; ConfigError; DataError; CoverageError.
    """
    space = load_space(settings.space)
    models = tuple(load_corrected(limit.device, settings.batch) for limit in settings.latency_limits)
    names = [model.card.device for model in models]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{twice[0]!r} stands twice among the devices; give every device one limit")
    side, share = settings.input_size, 1 - settings.latency_margin
    limits = with_common_prices(
        [
            *(
                latency_limit(space, model, classes, side, limit.max_latency_ms * share, settings.confidence)
                for model, limit in zip(models, settings.latency_limits, strict=True)
            ),
            *size_limits(space, classes, side, settings.size_limits),
        ]
    )
    problem = Problem(settings, space, classes, models, limits)
    _require_feasible(problem.front[0])
    check_latency_loss(settings.latency_loss, problem.bounds.range[0])
    return problem


def _require_feasible(problem: Problem) -> None:
    space = problem.space.name
    for limit in problem.limits:
        low, high = limit.costs.range
        if limit.value >= low:
            continue
        reach = f"the feasible range is {rounded_up(low)} to"
        if limit.unit == "ms":
            side = problem.settings.input_size
            raise LimitError(
                f"no network of {space!r} runs within {limit.value:g} ms on {limit.name} at {side}x{side}: "
                f"{reach} {high:.4g} ms{_spaces_within_reach(problem, limit)}; raise --max-latency, lower "
                "--input-size, or choose another --space"
            )
        raise LimitError(
            f"no network of {space!r} has only {limit.text(limit.value)}: {reach} {high:,.0f}; raise that limit, "
            "or choose another --space"
        )
    if excluding := conflict(problem.limits):
        raise LimitError(
            f"no network of {space!r} is within {conflict_text(excluding)} together; raise one of these limits, "
            "or choose another --space"
        )


def _spaces_within_reach(problem: Problem, limit: Limit) -> str:
    settings = problem.settings
    model = next(model for model in problem.models if model.card.device == limit.name)
    reach = []
    for name in available("search_spaces"):
        with suppress(QuadnasError):  # a broken file of the user's does not hide the answer
            space = load_space(name)
            table = price_space(space, model, problem.classes, settings.input_size, settings.confidence)
            low, high = table.range
            if low <= limit.value:
                reach.append(f"{name} ({low:.3g} to {high:.3g} ms)")
    return f"; within reach: {', '.join(reach)}" if reach else ""


def percentile(latencies_ms: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0..1) of the latencies lie."""
    return float(np.quantile(latencies_ms, share))
