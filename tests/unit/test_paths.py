"""Paths by size and at random, against closed forms, enumeration and the uniform law."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from quadnas.latency.kernels import Kernel
from quadnas.search.paths import candidate_macs, extreme_paths, fair_path, feasible_paths, uniform_path
from quadnas.search.problem import Problem
from quadnas.search.selection import selection
from tests.toy import taps_ms, toy_problem, toy_space

THREE = "[{block: quadra, kernel: [7, 3], expansion: [2]}, {block: identity}]"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def feasible(problem: Problem) -> set[tuple[int, ...]]:
    """By enumeration."""
    everything = itertools.product(*(range(len(slot.candidates)) for slot in problem.space.slots))
    return {path for path in everything if problem.bounds.of(path) <= problem.limit_ms}


def test_macs_of_quadratic_blocks_by_hand() -> None:
    """Three depthwise convolutions of side k and an MLP of expansion e on maps of 16 x 16 x 8 and 8 x 8 x 16."""
    macs = candidate_macs(toy_problem())
    for row, (side, channels) in zip(macs, [(16, 8), (16, 8), (8, 16), (8, 16)], strict=True):
        blocks = itertools.product((3, 5, 7), (2, 4))
        expected = [side**2 * (3 * k * k * channels + 2 * e * channels**2) for k, e in blocks]
        assert row.tolist() == [*expected, 0]


def test_the_ends_are_told_by_kernels_and_have_a_price() -> None:
    """Neither the order of candidates nor the number in a label says which is the largest."""
    candidates = (
        "[{block: identity}, {block: quadra, kernel: [7, 3], expansion: 2}, "
        "{block: quadra, kernel: 5, expansion: 16}]"
    )
    space = toy_space(channels=(4, 64), depths=(1, 1), candidates=candidates)
    labels = space.slots[0].labels
    # per position and channel of the first stage 3 * 49 + 4 * 4 = 163 and 3 * 25 + 32 * 4 = 203
    assert extreme_paths(toy_problem(space=space)) == (
        (labels.index("quadra-k5-e16"),) * 2, (labels.index("identity"),) * 2
    )  # fmt: skip

    def no_fives(kernel: Kernel) -> float | None:
        return None if kernel.kernel == 5 else taps_ms(kernel)

    assert extreme_paths(toy_problem(space=space, formula=no_fives))[0] == (labels.index("quadra-k7-e2"),) * 2


def test_a_uniform_path_takes_every_candidate_with_a_price_equally_often() -> None:
    priced = torch.tensor([[True, True, True], [True, False, True]])
    stream = generator()
    drawn = Counter(tuple(uniform_path(priced, stream)) for _ in range(6000))
    assert set(drawn) == set(itertools.product((0, 1, 2), (0, 2)))
    assert chisquare(list(drawn.values())).pvalue > 1e-3


def test_fair_paths_bring_every_candidate_with_a_price_once_before_any_comes_again() -> None:
    """In rounds of 3, 2 and 1; over many rounds every path is as likely as any other."""
    priced = torch.tensor([[True, True, True], [True, False, True], [False, True, False]])
    drawn = [tuple(fair_path(priced, 0, step)) for step in range(6000)]
    for slot, row in enumerate(priced):
        there = row.nonzero()[:, 0].tolist()
        chosen = [path[slot] for path in drawn]
        for start in range(0, len(drawn), len(there)):
            assert sorted(chosen[start : start + len(there)]) == there
    counts = Counter(drawn)
    assert set(counts) == set(itertools.product((0, 1, 2), (0, 2), (1,)))
    assert chisquare(list(counts.values())).pvalue > 1e-3
    assert drawn != [tuple(fair_path(priced, 1, step)) for step in range(6000)]


@pytest.mark.parametrize("share", [0.15, 0.5, 1.0])
def test_feasible_paths_are_uniform(share: float) -> None:
    """Against the uniform law over what enumeration finds, with successive draws independent."""
    space = toy_space(candidates=THREE)
    bounds = toy_problem(space=space).bounds
    limit_ms = float(np.quantile([bounds.of(path) for path in itertools.product(range(3), repeat=4)], share))
    problem = toy_problem(limit_ms, space=space)
    expected = sorted(feasible(problem))
    assert len(expected) == pytest.approx(81 * share, abs=9)
    drawn = list(itertools.islice(selection(problem, lambda _: 0.0).samples, 1200))
    counts = Counter(drawn)
    assert chisquare([counts[path] for path in expected]).pvalue > 1e-3
    assert sum(counts.values()) == sum(counts[path] for path in expected)
    numbers = np.array([expected.index(path) for path in drawn], dtype=float)
    correlation = np.corrcoef(numbers[:-1], numbers[1:])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(len(numbers))


def test_next_to_the_minimum_every_feasible_path_is_found() -> None:
    """Where rejection sampling would draw a feasible one in thousands of trials."""
    low, high = map(toy_problem().bounds.of, ([6] * 4, [5] * 4))
    for margin in (0.0, 0.01, 0.1):
        problem = toy_problem(low + margin * (high - low))
        expected = feasible(problem)
        assert 0 < len(expected) < 40
        assert set(itertools.islice(selection(problem, lambda _: 0.0).samples, 400)) == expected


def test_networks_cheaper_than_the_sum_of_their_parts_are_drawn_too() -> None:
    """What fits as a whole counts, though its parts add up to more than the limit."""
    space = toy_space(candidates=THREE)
    problem = toy_problem(space=space)
    (limit,) = problem.limits
    costs = sorted(limit.costs.of(path) for path in itertools.product(range(3), repeat=4))
    cheaper = replace(limit, value=0.8001 * costs[60], whole=lambda path: 0.8 * limit.costs.of(path))
    problem = replace(problem, limits=(cheaper,))
    drawn = set(itertools.islice(selection(problem, lambda _: 0.0).samples, 800))
    assert drawn == {path for path in itertools.product(range(3), repeat=4) if cheaper.fits(path)}
    assert len(drawn) > len(feasible(problem))


def test_a_chain_is_a_function_of_its_generator() -> None:
    priced = torch.ones(5, 4, dtype=torch.bool)

    def within(path: Sequence[int]) -> bool:
        return sum(path) <= 6

    one, same, other = (
        list(itertools.islice(feasible_paths(priced, within, [0] * 5, generator(seed)), 20))
        for seed in (0, 0, 1)
    )
    assert one == same != other
