"""The multipliers of the limits: closed forms, and the nearest of many distributions."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax, xlogy

from quadnas.latency.table import CostTable
from quadnas.search.constraint import Limit
from quadnas.search.multipliers import multipliers, relative_costs, tilt


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
@example(
    slots=6, candidates=5, share=0.0, spread=500.0, seed=36, count=3
)  # Newton's method from cold goes astray
@example(slots=3, candidates=5, share=0.0, spread=500.0, seed=367, count=2)
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
