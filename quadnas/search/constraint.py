"""The hard limits, and the knapsack that guarantees them."""

import ctypes
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from quadnas.errors import LimitError
from quadnas.latency.table import CostTable

GRID = 20_000
"""Steps between the cheapest network and a limit; costs are rounded up to it."""

RELATIVE_GAP = 1e-4
"""How much more of the scores than necessary an integer program may give up for several limits."""

MAX_NODES = 2_000
"""Of the integer program's search tree, after which its best network so far is taken."""

Whole = Callable[[Sequence[int]], float]
"""Choices -> what the whole network costs."""


@dataclass(frozen=True)
class Limit:
    """What a network may cost: ``whole(choices) <= value`` decides, ``costs`` are candidates' prices that add up.

    ``name``: the device of a latency, or ``parameters``, ``macs``, ``weight_bytes``; ``unit``: ``ms``, or what is
    counted in words. ``value`` has the margin taken off.
    """

    name: str
    unit: str
    value: float
    costs: CostTable
    whole: Whole

    @property
    def binds(self) -> bool:
        """Whether some network of the space is above the limit."""
        return self.costs.range[1] > self.value

    def text(self, value: float) -> str:
        """A value in words: ``300 ms on cortexA76`` or ``5,000,000 parameters``."""
        return f"{value:.4g} ms on {self.name}" if self.unit == "ms" else f"{value:,.0f} {self.unit}"

    def fits(self, choices: Sequence[int]) -> bool:
        """Whether a whole network is within the limit."""
        return self.whole(choices) <= self.value


Budgets = Sequence[tuple[CostTable, float]]
"""Tables with what a network may cost by each."""


def best_within(scores: NDArray[np.float64], budgets: Budgets) -> tuple[int, ...]:
    """The architecture with the largest sum of scores within all budgets.

    scores: (slots, most candidates), ignored where a slot has no such candidate or no price for it. All tables
    price the same candidates. Costs are rounded up to a grid of what is left above the cheapest network, so the
    result never exceeds a budget. One budget that binds: ``knapsack``, exact on the grid; several: an integer
    program, see RELATIVE_GAP. Raises LimitError if nothing fits.
    """
    for table, budget in budgets:
        if budget < table.range[0]:
            raise LimitError(f"no network within {budget:g}: the cheapest costs {table.range[0]:.4g}")
    binding = [(table, budget) for table, budget in budgets if table.range[1] > budget] or budgets[:1]
    if len(binding) == 1:
        return knapsack(scores, *binding[0])
    return _integer_program(scores, binding)


def knapsack(scores: NDArray[np.float64], table: CostTable, budget: float) -> tuple[int, ...]:
    """``best_within`` one budget (multiple-choice knapsack): dynamic programming over the grid."""
    cheapest, _ = table.range
    spare = budget - cheapest
    if spare < 0:
        raise LimitError(f"no network within {budget:g}: the cheapest costs {cheapest:.4g}")
    best = np.zeros(GRID + 1)
    picks = []
    for row, row_scores in zip(table.rows, scores, strict=True):
        costs = _grid_costs(row, spare)
        options = np.full((len(row), GRID + 1), -np.inf)
        for i, cost in enumerate(costs):
            if cost is not None:
                options[i, cost:] = best[: GRID + 1 - cost] + row_scores[i]
        picks.append(options.argmax(axis=0).astype(np.int16))
        best = options.max(axis=0)
    return _trace(picks, [_grid_costs(row, spare) for row in table.rows])


def _grid_costs(row: Sequence[float], spare: float) -> list[int | None]:
    """Each candidate's cost above the slot's cheapest in grid steps, rounded up; None if it cannot fit."""
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


def _integer_program(scores: NDArray[np.float64], budgets: Budgets) -> tuple[int, ...]:
    """One 0/1 variable per candidate that fits alone; what is minimised is the score given up in the slots.

    All costs are whole grid steps, so an answer within the solver's tolerance (1e-6 of a variable) exceeds no
    budget.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415 (takes a second)

    rows = [[_grid_costs(row, budget - table.range[0]) for row in table.rows] for table, budget in budgets]
    places = [
        (slot, i)
        for slot, row in enumerate(rows[0])
        for i in range(len(row))
        if all(table[slot][i] is not None for table in rows)
    ]
    if len({slot for slot, _ in places}) < len(scores):
        raise LimitError("no network is within all limits together")
    slots = np.array([slot for slot, _ in places])
    chosen = np.array([scores[place] for place in places])
    lost = np.array([chosen[slots == slot].max() for slot in slots]) - chosen
    one_each = LinearConstraint((slots == np.arange(len(scores))[:, None]).astype(float), 1, 1)
    within = LinearConstraint(
        np.array([[table[s][i] for s, i in places] for table in rows], float), -np.inf, GRID
    )
    with _quiet_output():
        found = milp(
            lost / (lost.max(initial=0.0) or 1.0),
            integrality=np.ones(len(places)),
            bounds=Bounds(0, 1),
            constraints=[one_each, within],
            options={"mip_rel_gap": RELATIVE_GAP, "node_limit": MAX_NODES},
        )
    if found.x is None:
        raise LimitError("no network is within all limits together")
    return tuple(i for (_, i), share in zip(places, found.x, strict=True) if share > 0.5)


@contextmanager
def _quiet_output() -> Iterator[None]:
    """What a C library writes to standard output goes to standard error: an answer in JSON is one line alone."""
    flush = ctypes.CDLL(None).fflush
    flush(None)
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)


def derive(scores: NDArray[np.float64], limits: Sequence[Limit]) -> tuple[int, ...]:
    """The best-scored architecture that, as a whole network, is within every limit.

    What a whole network costs can differ from the table's sum: fusion across layers saves or adds, and an upper
    bound of a network lies below the sum of its kernels' upper bounds. Where the sums are the dearer ones, the
    knapsack's budgets are raised by that ratio; an excess is then taken off the budget that it exceeds, until
    all budgets are back at the limits. Raises LimitError.
    """
    tables, values = [limit.costs for limit in limits], [limit.value for limit in limits]
    fitting = best_within(scores, list(zip(tables, values, strict=True)))
    fits = all(limit.fits(fitting) for limit in limits)
    budgets = [raised(limit, fitting) for limit in limits] if fits else values
    while not fits or any(budget > value for budget, value in zip(budgets, values, strict=True)):
        try:
            choices = best_within(scores, list(zip(tables, budgets, strict=True)))
        except LimitError:
            if fits:
                break
            raise
        lowered = [_lowered(limit, budget, choices) for limit, budget in zip(limits, budgets, strict=True)]
        if lowered == budgets:
            return max(choices, fitting, key=partial(_total, scores)) if fits else choices
        budgets = lowered
    return fitting


def raised(limit: Limit, choices: Sequence[int]) -> float:
    """The budget of the sum that leaves as much for the whole network as the limit."""
    return limit.value * max(1.0, limit.costs.of(choices) / max(limit.whole(choices), 1e-300))


def _lowered(limit: Limit, budget: float, choices: Sequence[int]) -> float:
    """The budget without what the whole network costs above the limit; the same if it is within."""
    excess = limit.whole(choices) - limit.value
    if excess <= 0:
        return budget
    # at least one grid step, or rounding could keep the loop in place
    step = max(excess, (budget - limit.costs.range[0]) / GRID, 1e-9 * limit.value)
    return min(budget, limit.costs.of(choices)) - step


def _total(scores: NDArray[np.float64], choices: Sequence[int]) -> float:
    return math.fsum(row[choice] for row, choice in zip(scores, choices, strict=True))
