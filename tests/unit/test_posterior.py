"""Beliefs about gains: the normal posterior by its information form, and Thompson sampling that finds the best."""

import itertools

import pytest
import torch
from torch import Tensor

from quadnas.search.posterior import INFLATION, LEVEL_VARIANCE, GainPosterior

SLOTS, CANDIDATES = 3, 4
EVERYTHING = list(itertools.product(range(CANDIDATES), repeat=SLOTS))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int) -> Tensor:
    return torch.randn(SLOTS, CANDIDATES, dtype=torch.float64, generator=generator(seed))


def loss_of(gains: Tensor, choices: tuple[int, ...]) -> float:
    return 2.0 - gains[range(SLOTS), list(choices)].sum().item()


def test_without_comparisons_the_prior_stands() -> None:
    gains, errors = normal(0), normal(1).abs()
    belief = GainPosterior(gains, errors)
    drawn = torch.stack([belief.draw(generator(seed)) for seed in range(4000)])
    torch.testing.assert_close(drawn.mean(0), gains, rtol=0, atol=float(0.08 * errors.max() * INFLATION**0.5))
    torch.testing.assert_close(drawn.var(0), INFLATION * errors.square(), rtol=0.1, atol=0)


def test_the_posterior_is_that_of_the_information_form() -> None:
    """Precision = prior precision + X'X / s^2, with the variance of the surprises as s^2."""
    gains, errors, truth = normal(0), 0.1 + normal(1).abs(), normal(2)
    belief = GainPosterior(gains, errors)
    compared = EVERYTHING[::7]
    for choices in compared:
        belief.observe(choices, loss_of(truth, choices))
    design = torch.zeros(len(compared), SLOTS * CANDIDATES + 1, dtype=torch.float64)
    for row, choices in zip(design, compared, strict=True):
        row[[s * CANDIDATES + c for s, c in enumerate(choices)]] = 1
        row[-1] = 1
    prior = torch.cat([gains.flatten(), torch.zeros(1, dtype=torch.float64)])
    variances = torch.cat([INFLATION * errors.flatten().square(), torch.tensor([LEVEL_VARIANCE])])
    values = torch.tensor([-loss_of(truth, choices) for choices in compared], dtype=torch.float64)
    noise = (values - design @ prior).var()
    precision = torch.diag(1 / variances) + design.T @ design / noise
    covariance = torch.linalg.inv(precision)
    mean = covariance @ (prior / variances + design.T @ values / noise)
    drawn = torch.stack([belief.draw(generator(seed)).flatten() for seed in range(6000)])
    deviation = covariance.diagonal()[:-1].sqrt()
    assert ((drawn.mean(0) - mean[:-1]).abs() < 5 * deviation / 6000**0.5).all()
    sampling = (deviation[:, None] * deviation) * (2 / 6000) ** 0.5
    assert ((torch.cov(drawn.T) - covariance[:-1, :-1]).abs() < 5 * sampling).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_dozen_comparisons_correct_gains_that_are_far_off(seed: int) -> None:
    truth = normal(seed)
    belief = GainPosterior(truth + 0.7 * normal(100 + seed), torch.full_like(truth, 0.5))
    source, losses = generator(seed), {}
    for _ in range(16):
        scores = belief.draw(source)
        found = tuple(scores.argmax(1).tolist())
        if found not in losses:
            losses[found] = loss_of(truth, found)
            belief.observe(found, losses[found])
    ranks = sorted(loss_of(truth, choices) for choices in EVERYTHING)
    assert min(losses.values()) <= ranks[2]
