"""Gains from swaps: exact for consistent swaps, second-order errors cancel, standard errors are honest."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quadnas.search.gains import SwapGains

SLOTS, CANDIDATES = 3, 5


def observed(
    losses: Tensor, steps: int, noise: float = 0.0, seed: int = 0, curvature: Tensor | None = None
) -> SwapGains:
    """Swaps of candidates with these true losses; ``curvature`` (slots, candidates): positions on a line."""
    generator = torch.Generator().manual_seed(seed)
    slots, count = losses.shape
    gains = SwapGains(torch.ones(slots, count, dtype=torch.bool))
    rows = torch.arange(slots)
    for _ in range(steps):
        path = torch.randint(count, (slots,), generator=generator)
        others = (path + torch.randint(1, count, (slots,), generator=generator)) % count
        change = losses[rows, others] - losses[rows, path]
        if curvature is not None:
            change = change - (curvature[rows, others] - curvature[rows, path]).square()
        change = change + noise * torch.randn(slots, dtype=torch.float64, generator=generator)
        gains.observe(path.tolist(), others.tolist(), change)
    return gains


def centred(losses: Tensor) -> Tensor:
    return losses.mean(1, keepdim=True) - losses


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_consistent_swaps_give_the_exact_gains(seed: int) -> None:
    losses = torch.randn(
        SLOTS, CANDIDATES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    gains, errors = observed(losses, 200, seed=seed).estimate()
    torch.testing.assert_close(gains, centred(losses), rtol=0, atol=1e-9)
    assert errors.max() < 1e-6


def test_first_order_swaps_of_a_parabola_give_its_exact_differences() -> None:
    """L(x) = x^2 at points x_i: the slope at i times x_j - x_i is off by (x_j - x_i)^2, both ways the same."""
    points = torch.tensor([[0.0, 0.5, 1.0, -2.0, 3.0]], dtype=torch.float64)
    loss = points.square()
    gains = SwapGains(torch.ones(1, 5, dtype=torch.bool))
    for i in range(5):
        for j in range(5):
            if i != j:
                gains._time.zero_()  # equal weights
                gains.observe([i], [j], 2 * points[:, i] * (points[:, j] - points[:, i]))
    torch.testing.assert_close(gains.estimate()[0], centred(loss), rtol=0, atol=1e-12)


def test_standard_errors_cover_the_truth() -> None:
    losses = torch.randn(40, CANDIDATES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inside = []
    for seed in range(20):
        gains, errors = observed(losses, 300, noise=0.5, seed=seed).estimate()
        inside.append(((gains - centred(losses)).abs() < 1.645 * errors).double().mean())
    assert torch.stack(inside).mean() == pytest.approx(0.90, abs=0.02)


def test_a_slot_without_a_swap_counts_nothing() -> None:
    losses = torch.randn(SLOTS, CANDIDATES, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gains = observed(losses, 50, noise=0.5)
    before = gains.estimate()
    gains.observe([0, 1, 2], [0, 1, 2], torch.zeros(SLOTS, dtype=torch.float64))
    for one, other in zip(before, gains.estimate(), strict=True):
        assert torch.equal(one, other)


def test_late_swaps_weigh_more() -> None:
    gains = SwapGains(torch.ones(1, 2, dtype=torch.bool))
    for change in [0.0] * 50 + [1.0] * 50:
        gains.observe([0], [1], torch.tensor([change], dtype=torch.float64))
    # weights t^2: 7/8 of them on the second half
    assert (gains.estimate()[0][0, 0] - gains.estimate()[0][0, 1]).item() == pytest.approx(7 / 8, abs=0.02)


def test_what_is_not_priced_takes_no_part() -> None:
    priced = torch.tensor([[True, True, False], [True, True, True]])
    gains = SwapGains(priced)
    for path, others, change in (([0, 2], [1, 0], [1.0, 2.0]), ([1, 1], [0, 0], [-1.0, 4.0])):
        gains.observe(path, others, torch.tensor(change, dtype=torch.float64))
    found, errors = gains.estimate()
    torch.testing.assert_close(
        found, torch.tensor([[0.5, -0.5, 0.0], [-2.0, 2.0, 0.0]], dtype=torch.float64), rtol=0, atol=1e-9
    )
    assert errors[0, 2] == 0


def test_state_goes_on() -> None:
    losses = torch.randn(SLOTS, CANDIDATES, dtype=torch.float64)
    gains = observed(losses, 10, noise=1.0)
    other = SwapGains(torch.ones(SLOTS, CANDIDATES, dtype=torch.bool))
    other.load_state({name: value.clone() for name, value in gains.state().items()})
    for each in (gains, other):
        each.observe([0, 1, 2], [1, 2, 3], torch.ones(3, dtype=torch.float64))
    assert torch.equal(gains.estimate()[0], other.estimate()[0])
