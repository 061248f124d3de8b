"""Several limits at once, against brute force, closed counts and networks that are really built."""

import itertools
import math
import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from torch import nn

from quadnas.errors import ConfigError, LimitError
from quadnas.latency.table import CostTable
from quadnas.network import Network, deployed, operators_of
from quadnas.search.constraint import GRID, Limit, best_within, derive
from quadnas.search.limits import conflict, conflict_text, size_limits, with_common_prices
from quadnas.search.problem import pose
from quadnas.search.settings import LatencyLimit, SearchSettings
from quadnas.space.search_space import SearchSpace
from tests.toy import toy_space

SLOTS, CANDIDATES = 4, 4
EVERYTHING = list(itertools.product(range(CANDIDATES), repeat=SLOTS))
MIXED = "[{block: quadra, kernel: [3, 7], expansion: [2]}, {block: mbconv, kernel: 3, expansion: 3}]"


def table(generator: np.random.Generator) -> CostTable:
    rows = generator.uniform(0, 10, (SLOTS, CANDIDATES)).round(2).tolist()
    return CostTable(float(generator.uniform(0, 5)), tuple(map(tuple, rows)))


def score(scores: np.ndarray, choices: Sequence[int]) -> float:
    return math.fsum(scores[slot, choice] for slot, choice in enumerate(choices))


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("kind", ["any", "equal", "huge"])
def test_several_budgets_hold_and_the_best_that_clearly_fits_is_found(count: int, kind: str) -> None:
    generator = np.random.default_rng(count)
    found = 0
    for _ in range(12):
        tables = [table(generator) for _ in range(count)]
        scores = {
            "any": generator.normal(size=(SLOTS, CANDIDATES)),
            "equal": np.zeros((SLOTS, CANDIDATES)),
            "huge": 10 ** generator.uniform(-6, 6, (SLOTS, CANDIDATES)),
        }[kind]
        budgets = [
            (one, one.range[0] + float(generator.uniform(0.2, 0.9)) * (one.range[1] - one.range[0]))
            for one in tables
        ]
        clear = [(one, limit - (SLOTS + 1) * (limit - one.range[0]) / GRID) for one, limit in budgets]
        fitting = [path for path in EVERYTHING if all(one.of(path) <= limit for one, limit in clear)]
        try:
            choices = best_within(scores, budgets)
        except LimitError:
            assert not fitting
            continue
        found += 1
        assert all(one.of(choices) <= limit for one, limit in budgets)
        best = max((score(scores, path) for path in fitting), default=-math.inf)
        lost = sum(scores.max(axis=1)) - best
        assert score(scores, choices) >= best - 2e-4 * lost - 1e-6 * scores.max()
    assert found > 5


def test_derivation_holds_every_limit_of_whole_networks_and_uses_what_they_save() -> None:
    generator = np.random.default_rng(0)
    better = 0
    for _ in range(15):
        tables = [table(generator) for _ in range(2)]
        scores = generator.normal(size=(SLOTS, CANDIDATES))

        def dearer(path: Sequence[int], one: CostTable = tables[0]) -> float:
            return one.of(path) + sum(a == b for a, b in pairwise(path))

        def cheaper(path: Sequence[int], one: CostTable = tables[1]) -> float:
            return 0.7 * one.of(path)

        values = [sum(one.range) / 2 for one in tables]
        limits = [
            Limit("one", "ms", values[0], tables[0], dearer),
            Limit("two", "ms", values[1], tables[1], cheaper),
        ]
        choices = derive(scores, limits)
        assert all(limit.fits(choices) for limit in limits)
        strict = [path for path in EVERYTHING if limits[0].fits(path) and tables[1].of(path) <= values[1]]
        better += score(scores, choices) > max(score(scores, path) for path in strict) + 1e-9
    assert better > 3  # the second limit leaves more than its sums say


def test_limits_that_exclude_each_other_are_named_with_what_each_could_reach() -> None:
    fast_is_large = CostTable(0.0, ((1.0, 9.0), (1.0, 9.0)))
    small_is_slow = CostTable(0.0, ((90.0, 10.0), (90.0, 10.0)))
    indifferent = CostTable(0.0, ((5.0, 5.0), (5.0, 5.0)))

    def limit(name: str, one: CostTable, value: float) -> Limit:
        return Limit(name, "ms", value, one, one.of)

    limits = [limit("a", fast_is_large, 9.0), limit("b", indifferent, 11.0), limit("c", small_is_slow, 99.0)]
    excluding = conflict(limits)
    assert [one.name for one in excluding] == ["a", "c"]
    text = conflict_text(excluding)
    assert "9 ms on a (alone 2, beside the others 18)" in text
    assert "99 ms on c (alone 20, beside the others 180)" in text
    assert conflict([limit("a", fast_is_large, 10.0), limit("c", small_is_slow, 100.0)]) == ()


def test_a_candidate_that_one_limit_cannot_price_is_out_for_all() -> None:
    first = CostTable(0.0, ((1.0, 2.0, 3.0),))
    second = CostTable(0.0, ((1.0, math.inf, 1.0),))
    limits = with_common_prices(
        [Limit(n, "ms", 2.5, one, one.of) for n, one in (("a", first), ("b", second))]
    )
    assert limits[0].costs.rows == ((1.0, math.inf, 3.0),)
    assert best_within(np.array([[0.0, 9.0, 5.0]]), [(one.costs, one.value) for one in limits]) == (0,)


@pytest.mark.parametrize("space", [toy_space(), toy_space(candidates=MIXED)], ids=["quadra", "mixed"])
def test_size_tables_add_up_to_what_whole_networks_have(space: SearchSpace) -> None:
    limits = {
        limit.name: limit
        for limit in size_limits(space, 10, 64, {"parameters": 10**6, "macs": 10**9, "weight_bytes": 10**6})
    }
    generator = random.Random(0)
    for _ in range(3):
        path = space.sample(generator)
        layers = space.layers(path, 10)
        network = Network(layers)

        def numbers(module: nn.Module) -> int:
            return sum(parameter.numel() for parameter in module.parameters())

        truth = {
            "parameters": numbers(network),
            "weight_bytes": 4 * numbers(deployed(layers, network)),
            "macs": sum(operator.kernel.macs for operator in operators_of(layers, 64)),
        }
        for name, limit in limits.items():
            assert limit.costs.of(path) == limit.whole(path) == truth[name], name
    assert truth["weight_bytes"] < 4 * truth["parameters"]


def test_two_devices_and_a_size_are_posed_together() -> None:
    also = (LatencyLimit(device="myriadvpu", max_latency_ms=20.0),)
    settings = SearchSettings(device="cortexA76", max_latency_ms=200.0, also=also, max_parameters=5_000_000)
    problem = pose(settings, classes=10)
    assert [limit.name for limit in problem.limits] == ["cortexA76", "myriadvpu", "parameters"]
    scores = np.random.default_rng(0).normal(size=tuple(problem.priced.shape))
    choices = derive(scores, problem.limits)
    assert problem.fits(choices)
    for model, limit_ms in zip(problem.models, (200.0, 20.0), strict=True):
        latency_ms = problem.estimate(choices, model).latency_ms
        assert latency_ms is not None and latency_ms <= limit_ms
    with pytest.raises(LimitError, match=r"within 2 ms on myriadvpu .* feasible range is 2\.1"):
        tight = LatencyLimit(device="myriadvpu", max_latency_ms=2.0)
        pose(settings.model_copy(update={"also": (tight,)}), classes=10)
    with pytest.raises(LimitError, match=r"only 10,000 parameters: the feasible range is"):
        pose(settings.model_copy(update={"max_parameters": 10_000}), classes=10)
    with pytest.raises(ConfigError, match="'myriadvpu' stands twice"):
        pose(settings.model_copy(update={"also": also * 2}), classes=10)


def test_a_front_keeps_every_other_limit() -> None:
    settings = SearchSettings(
        device="cortexA76", max_latency_ms=300.0, tighter_limits_ms=(200.0, 100.0), latency_margin=0.1,
        max_parameters=5_000_000,
    )  # fmt: skip
    points = pose(settings, classes=10).front
    assert [point.limits[0].value for point in points] == pytest.approx([90.0, 180.0, 270.0])
    assert [point.settings.max_latency_ms for point in points] == [100.0, 200.0, 300.0]
    assert {point.limits[1].value for point in points} == {5_000_000}
    with pytest.raises(LimitError, match=r"within 9 ms on cortexA76"):
        pose(settings.model_copy(update={"tighter_limits_ms": (10.0, 200.0)}), classes=10)


@pytest.mark.parametrize(
    "changes",
    [{"tighter_limits_ms": (300.0,)}, {"tighter_limits_ms": (400.0,)}, {"tighter_limits_ms": (100.0, 100.0)},
     {"latency_loss": "mul_log", "max_macs": 10}],
)  # fmt: skip
def test_settings_that_make_no_sense(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"below max_latency_ms|defined for one limit"):
        SearchSettings(**{"device": "cortexA76", "max_latency_ms": 300.0, **changes})  # type: ignore[arg-type]
