"""The cost table of a search: every candidate of every slot in milliseconds or another unit, built once."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quadnas.errors import CoverageError
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import LatencyModel, Price, checked_prices


@dataclass(frozen=True, slots=True)
class CostTable:
    """``fixed`` for the layers that all architectures share, ``rows[s][i]`` for candidate i of slot s.

    All in one unit: ms for a latency, else parameters, multiply-accumulates or bytes. A candidate without a price
    stands as infinity: no search may choose it.
    """

    fixed: float
    rows: tuple[tuple[float, ...], ...]

    def of(self, choices: Sequence[int]) -> float:
        """The cost of the architecture with candidate ``choices[s]`` in slot s."""
        chosen = (row[choice] for row, choice in zip(self.rows, choices, strict=True))
        return math.fsum((self.fixed, *chosen))

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest cost in the space: slots are independent, so each slot's extremes add up."""
        priced = [[cost for cost in row if math.isfinite(cost)] for row in self.rows]
        if not all(priced):
            raise CoverageError("a slot has no candidate that the device's latency model can price")
        return (
            math.fsum((self.fixed, *map(min, priced))),
            math.fsum((self.fixed, *map(max, priced))),
        )

    @property
    def priced(self) -> Tensor:
        """(slots, most candidates) bool: where there is a candidate with a price."""
        return self._padded().isfinite()

    def expected(self, probabilities: Tensor) -> Tensor:
        """E[cost] (), differentiable, for probabilities (slots, most candidates), 0 where not priced."""
        costs = self._padded()
        return self.fixed + (probabilities * costs.where(costs.isfinite(), 0.0)).sum()

    def _padded(self) -> Tensor:
        rows = [torch.tensor(row, dtype=torch.float64) for row in self.rows]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=math.inf)


def build_table(
    model: LatencyModel,
    fixed: Sequence[Kernel],
    slots: Sequence[Sequence[Sequence[Kernel]]],
    cost_ms: Callable[[Price], float],
) -> CostTable:
    """Price the fixed kernels and those of [slot][candidate]; ``cost_ms`` turns a price into the cost to add up.

    Raises CoverageError if a fixed kernel has no price, DataError if the model prices a kernel at NaN, zero or
    below.
    """
    unique = list(dict.fromkeys([*fixed, *(k for slot in slots for kernels in slot for k in kernels)]))
    costs: dict[Kernel, float] = {}
    for kernel, price in zip(unique, checked_prices(model, unique), strict=True):
        costs[kernel] = math.inf if price.latency_ms is None else cost_ms(price)
    for kernel in fixed:
        if math.isinf(costs[kernel]):
            raise CoverageError(
                f"device {model.card.device!r} has no price for {kernel}, which every architecture needs; "
                "use another space or a device that covers it"
            )
    return CostTable(
        math.fsum(costs[kernel] for kernel in fixed),
        tuple(tuple(math.fsum(costs[k] for k in kernels) for kernels in slot) for slot in slots),
    )
