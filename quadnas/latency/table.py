"""The latency table of a search: every candidate of every slot in milliseconds, built once."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quadnas.errors import CoverageError
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import LatencyModel, Price, checked_prices


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """``fixed_ms`` for the layers that all architectures share, ``slots_ms[s][i]`` for candidate i of slot s.

    A candidate that the device's model cannot price stands as infinity: no search may choose it.
    """

    fixed_ms: float
    slots_ms: tuple[tuple[float, ...], ...]

    def of(self, choices: Sequence[int]) -> float:
        """Latency in ms of the architecture with candidate ``choices[s]`` in slot s."""
        chosen = (row[choice] for row, choice in zip(self.slots_ms, choices, strict=True))
        return math.fsum((self.fixed_ms, *chosen))

    @property
    def range_ms(self) -> tuple[float, float]:
        """Lowest and highest latency in the space: slots are independent, so each slot's extremes add up."""
        priced = [[ms for ms in row if math.isfinite(ms)] for row in self.slots_ms]
        if not all(priced):
            raise CoverageError("a slot has no candidate that the device's latency model can price")
        return (
            math.fsum((self.fixed_ms, *map(min, priced))),
            math.fsum((self.fixed_ms, *map(max, priced))),
        )

    @property
    def priced(self) -> Tensor:
        """(slots, most candidates) bool: where there is a candidate with a price."""
        return self._padded().isfinite()

    def expected(self, probabilities: Tensor) -> Tensor:
        """E[latency] () in ms, differentiable, for probabilities (slots, most candidates), 0 where not priced."""
        costs = self._padded()
        return self.fixed_ms + (probabilities * costs.where(costs.isfinite(), 0.0)).sum()

    def _padded(self) -> Tensor:
        rows = [torch.tensor(row, dtype=torch.float64) for row in self.slots_ms]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=math.inf)


def build_table(
    model: LatencyModel,
    fixed: Sequence[Kernel],
    slots: Sequence[Sequence[Sequence[Kernel]]],
    cost_ms: Callable[[Price], float],
) -> LatencyTable:
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
    return LatencyTable(
        math.fsum(costs[kernel] for kernel in fixed),
        tuple(tuple(math.fsum(costs[k] for k in kernels) for kernels in slot) for slot in slots),
    )
