"""The benchmark of limits: its hull against brute force, and a search whose expected latency meets its limit."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from benchmarks.limits_held import searched, settings, vertices
from quadnas.latency.table import CostTable
from quadnas.search.problem import pose


def test_vertices_are_the_best_networks_for_some_multiplier() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        costs, scores = generator.uniform(1, 9, (2, 3)), generator.standard_normal((2, 3))
        table = CostTable(2.0, tuple(map(tuple, costs.tolist())))
        networks = [
            (table.of(choices), sum(row[i] for row, i in zip(scores, choices, strict=True)))
            for choices in product(range(3), repeat=2)
        ]
        best = {
            max(networks, key=lambda network: network[1] - m * network[0])[0]
            for m in np.concatenate([np.linspace(0, 2, 20_001), np.geomspace(2, 1e3, 1000)])
        }
        found = {round(cost, 9) for cost in vertices(scores, table)}
        assert {round(cost, 9) for cost in best} <= found
        for cost in found:
            assert any(cost == pytest.approx(other) for other, _ in networks)


@pytest.mark.parametrize("strategy", ["swap", "proxyless"])
def test_the_expected_latency_is_at_a_tight_limit_in_every_step(tmp_path: Path, strategy: str) -> None:
    low, high = pose(settings(tmp_path, 2), 10).limits[0].costs.range
    limit_ms = low + 0.2 * (high - low)
    result, steps = searched(
        settings(tmp_path, 2, max_latency_ms=limit_ms, strategy=strategy), tmp_path / "run"
    )
    assert len(steps) > 2
    for step in steps:
        assert step["expected_ms"] == pytest.approx(limit_ms, rel=1e-5)
        assert step["multiplier"] > 0
    assert result.latency_ms <= limit_ms
