"""The hard limit: the multiplier that steers towards it, and the knapsack that guarantees it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadnas.errors import LimitError
from quadnas.latency.table import LatencyTable

GRID = 20_000
"""Steps between the cheapest network and the limit; costs are rounded up to it."""


@dataclass
class Multiplier:
    """One-sided Lagrange multiplier of latency <= limit, updated by dual ascent: it never rewards slowness."""

    rate: float
    value: float = 0.0

    def update(self, latency_ms: float, limit_ms: float) -> None:
        """value <- [value + rate (latency/limit - 1)]+ ."""
        self.value = max(0.0, self.value + self.rate * (latency_ms / limit_ms - 1))


def knapsack(scores: NDArray[np.float64], table: LatencyTable, limit_ms: float) -> tuple[int, ...]:
    """The architecture with the largest sum of scores within the limit (multiple-choice knapsack).

    scores: (slots, most candidates), ignored where a slot has no such candidate or no price for it. Dynamic
    programming over a grid of the time that is left above the cheapest network; costs are rounded up, so the
    result never exceeds the limit. Raises LimitError if nothing fits.
    """
    cheapest, _ = table.range_ms
    spare = limit_ms - cheapest
    if spare < 0:
        raise LimitError(f"no network within {limit_ms:g} ms: the fastest takes {cheapest:.2f} ms")
    best = np.zeros(GRID + 1)
    picks = []
    for row, row_scores in zip(table.slots_ms, scores, strict=True):
        costs = _grid_costs(row, spare)
        options = np.full((len(row), GRID + 1), -np.inf)
        for i, cost in enumerate(costs):
            if cost is not None:
                options[i, cost:] = best[: GRID + 1 - cost] + row_scores[i]
        picks.append(options.argmax(axis=0).astype(np.int16))
        best = options.max(axis=0)
    return _trace(picks, [_grid_costs(row, spare) for row in table.slots_ms])


def _grid_costs(row: Sequence[float], spare: float) -> list[int | None]:
    """Each candidate's time above the slot's cheapest in grid steps, rounded up; None if it cannot fit."""
    extra = np.asarray(row) - min(row)
    if spare == 0:
        return [0 if e == 0 else None for e in extra]
    with np.errstate(over="ignore"):  # infinitely many steps do not fit either
        steps = np.ceil(extra / spare * GRID)
    return [int(step) if step <= GRID else None for step in steps]


def _trace(picks: Sequence[NDArray[np.int16]], costs: Sequence[Sequence[int | None]]) -> tuple[int, ...]:
    left = GRID
    choices: list[int] = []
    for pick, slot_costs in zip(reversed(picks), reversed(costs), strict=True):
        choice = int(pick[left])
        choices.append(choice)
        left -= slot_costs[choice] or 0
    return tuple(reversed(choices))


def derive(
    scores: NDArray[np.float64],
    table: LatencyTable,
    limit_ms: float,
    whole_network_ms: Callable[[Sequence[int]], float],
) -> tuple[int, ...]:
    """The best-scored architecture whose latency, as a whole network, is within the limit.

    What a whole network costs can differ from the table's sum: fusion across layers saves or adds, and an upper
    bound of a network lies below the sum of its kernels' upper bounds. Where the sum is the dearer one, the
    knapsack's limit is raised by that ratio; an excess is then taken off it, at most down to the cheapest
    network. Raises LimitError.
    """
    fitting = knapsack(scores, table, limit_ms)
    whole_ms = whole_network_ms(fitting)
    budget_ms, least_ms = limit_ms, -math.inf
    if whole_ms <= limit_ms:
        budget_ms, least_ms = limit_ms * max(1.0, table.of(fitting) / max(whole_ms, 1e-300)), limit_ms
    while budget_ms > least_ms:
        choices = knapsack(scores, table, budget_ms)
        excess = whole_network_ms(choices) - limit_ms
        if excess <= 0:
            return choices
        # at least one grid step, or rounding could keep the loop in place
        step = max(excess, (budget_ms - table.range_ms[0]) / GRID, 1e-9 * limit_ms)
        budget_ms = min(budget_ms, table.of(choices)) - step
    return fitting
