"""The hard limit against brute force."""

import math
from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax, xlogy

from quadnas.errors import LimitError
from quadnas.latency.table import CostTable
from quadnas.search.constraint import GRID, Limit, derive, knapsack, multipliers, relative_costs, tilt

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


def expected(table: CostTable, probabilities: np.ndarray) -> float:
    return table.fixed + math.fsum(
        share * cost
        for row, own in zip(table.rows, probabilities, strict=True)
        for cost, share in zip(row, own, strict=False)
    )


def test_multiplier_of_two_candidates_in_closed_form() -> None:
    """Costs 1 + {0, 4} within 2: the second may have a quarter, odds of 1 to 3, whatever speaks for it."""
    table = CostTable(1.0, ((0.0, 4.0),))
    limit = Limit("toy", "ms", 2.0, table, table.of)
    for logit in (-0.5, 0.0, 3.0, 30.0):
        (found,) = multipliers(np.array([[0.0, logit]]), [limit])
        assert found * 4 / 2 == pytest.approx(logit + math.log(3), abs=1e-4)
    assert multipliers(np.array([[0.0, -1.2]]), [limit]) == pytest.approx([0.0])


@settings(max_examples=40)
@given(
    slots=st.integers(1, 6), candidates=st.integers(2, 5), share=st.floats(0, 1.2),
    spread=st.sampled_from([0.0, 1.0, 8.0, 500.0]), seed=st.integers(0, 10**6), count=st.integers(1, 3),
)  # fmt: skip
def test_multipliers_give_the_nearest_distribution_within_all_limits(
    slots: int, candidates: int, share: float, spread: float, seed: int, count: int
) -> None:
    generator = np.random.default_rng(seed)
    logits = spread * generator.standard_normal((slots, candidates))
    tables = [
        CostTable(1.0, tuple(map(tuple, generator.uniform(0, 9, (slots, candidates))))) for _ in range(count)
    ]
    cheap: list[int] = generator.integers(0, candidates, slots).tolist()
    limits = []
    for table in tables:
        low, high = table.of(cheap), table.range[1]
        limits.append(Limit("toy", "ms", low + (0.01 + share) * max(high - low, 0.1), table, table.of))

    found = multipliers(logits, limits)
    nearest = softmax(logits - tilt(found, relative_costs(limits, candidates)), axis=1)
    for weight, limit in zip(found, limits, strict=True):
        spent = expected(limit.costs, nearest) / limit.value
        assert spent <= 1 + 1e-5
        assert weight == 0 or spent >= 1 - 1e-5

    def distance(distribution: np.ndarray) -> float:
        return float((xlogy(distribution, distribution) - distribution * log_softmax(logits, axis=1)).sum())

    certain = np.eye(candidates)[cheap]
    for _ in range(20):
        other = generator.dirichlet(np.ones(candidates), slots)
        for step in range(60):
            mixed = certain + (other - certain) * 0.9**step
            if all(expected(limit.costs, mixed) <= limit.value for limit in limits):
                assert distance(mixed) >= distance(nearest) - 1e-3
                break


def test_multipliers_exist_for_a_limit_at_the_minimum() -> None:
    table = CostTable(1.0, ((2.0, 3.0, math.inf), (1.0, 7.0, 9.0)))
    limit = Limit("toy", "ms", 4.0, table, table.of)
    logits = np.array([[0.0, 5.0, -math.inf], [0.0, 5.0, 2.0]])
    found = multipliers(logits, [limit])
    nearest = softmax(logits - tilt(found, relative_costs([limit], 3)), axis=1)
    assert nearest[:, 0] == pytest.approx([1, 1], abs=1e-5)
    assert nearest[0, 2] == 0
