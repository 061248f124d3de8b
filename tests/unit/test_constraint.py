"""The hard limit against brute force."""

import math
from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quadnas.errors import LimitError
from quadnas.latency.table import CostTable
from quadnas.search.constraint import GRID, Limit, derive, knapsack

costs = st.floats(0.0, 50.0).map(lambda ms: round(ms, 3))
slots = st.lists(st.lists(costs, min_size=1, max_size=4), min_size=1, max_size=5)


@st.composite
def problems(draw: st.DrawFn) -> tuple[CostTable, np.ndarray, float]:
    rows = draw(slots)
    table = CostTable(draw(costs), tuple(map(tuple, rows)))
    width = max(map(len, rows))
    scores = np.array([[draw(st.floats(-10, 0)) for _ in range(width)] for _ in rows])
    low, high = table.range
    return table, scores, low + draw(st.floats(0, 1.2)) * (high - low)


def score(scores: np.ndarray, choices: tuple[int, ...]) -> float:
    return math.fsum(row[choice] for row, choice in zip(scores, choices, strict=True))


def all_choices(table: CostTable) -> list[tuple[int, ...]]:
    return list(product(*(range(len(row)) for row in table.rows)))


@given(problems())
@settings(deadline=None, max_examples=300)
def test_knapsack_never_exceeds_the_limit_and_is_the_best_that_clearly_fits(
    problem: tuple[CostTable, np.ndarray, float],
) -> None:
    table, scores, limit_ms = problem
    choices = knapsack(scores, table, limit_ms)
    assert table.of(choices) <= limit_ms * (1 + 1e-12)
    spare = limit_ms - table.range[0]
    clear_limit = limit_ms - (len(table.rows) + 1) * spare / GRID  # rounding up costs a step per slot
    best = max(
        (score(scores, other) for other in all_choices(table) if table.of(other) <= clear_limit),
        default=-math.inf,
    )
    assert score(scores, choices) >= best - 1e-9


@given(problems())
@settings(deadline=None, max_examples=100)
def test_range_is_that_of_all_architectures(problem: tuple[CostTable, np.ndarray, float]) -> None:
    table, _, _ = problem
    latencies = [table.of(choices) for choices in all_choices(table)]
    assert table.range == pytest.approx((min(latencies), max(latencies)))


def test_at_the_minimum_only_the_fastest_network_is_left() -> None:
    table = CostTable(1.0, ((0.3, 0.1, 0.2), (5.0, 0.7)))
    scores = np.array([[0.0, -9.0, 0.0], [0.0, -9.0, 0.0]])
    assert knapsack(scores, table, table.range[0]) == (1, 1)
    with pytest.raises(LimitError, match=r"the cheapest costs 1\.8"):
        knapsack(scores, table, 1.79)


def test_a_candidate_without_a_price_is_never_chosen() -> None:
    table = CostTable(0.0, ((math.inf, 1.0), (1.0, math.inf)))
    assert knapsack(np.array([[0.0, -5.0], [-5.0, 0.0]]), table, 1e9) == (1, 0)


@given(problems(), st.floats(0.0, 3.0))
@settings(deadline=None, max_examples=100)
def test_derivation_holds_the_limit_for_whole_networks_that_cost_more_than_their_parts(
    problem: tuple[CostTable, np.ndarray, float], extra_ms: float
) -> None:
    table, scores, limit_ms = problem

    def whole_ms(choices: tuple[int, ...]) -> float:
        """Two neighbours of the same kind cost something together that the table does not know."""
        repeats = sum(a == b for a, b in pairwise(choices))
        return table.of(choices) + extra_ms * repeats

    try:
        choices = derive(scores, [Limit("toy", "ms", limit_ms, table, whole_ms)])  # type: ignore[arg-type]
    except LimitError:
        fastest = tuple(row.index(min(row)) for row in table.rows)
        assert whole_ms(fastest) > limit_ms or extra_ms > 0
    else:
        assert whole_ms(choices) <= limit_ms


@given(problems(), st.floats(0.3, 1.0), st.floats(0.0, 0.2))
@settings(deadline=None, max_examples=100)
def test_derivation_uses_what_whole_networks_cost_less_than_their_parts(
    problem: tuple[CostTable, np.ndarray, float], share: float, quirk: float
) -> None:
    """A bound of a whole network lies below the sum of its kernels' bounds, the more the better they average."""
    table, scores, limit_ms = problem
    assume(
        table.range[0] > 0
    )  # by how much whole networks cost less than their parts, one of 0 ms cannot tell

    def whole_ms(choices: Sequence[int]) -> float:
        return table.of(choices) * share * (1 - quirk * (sum(choices) % 2))

    choices = derive(scores, [Limit("toy", "ms", limit_ms, table, whole_ms)])
    assert whole_ms(choices) <= limit_ms
    assert score(scores, choices) >= score(scores, knapsack(scores, table, limit_ms)) - 1e-9
    if quirk == 0:
        clear_limit = limit_ms / share - (len(table.rows) + 1) * (limit_ms / share - table.range[0]) / GRID
        best = max(
            (
                score(scores, other)
                for other in all_choices(table)
                if table.of(other) <= clear_limit * (1 - 1e-9)
            ),
            default=-math.inf,
        )
        assert score(scores, choices) >= best - 1e-9
