"""Pooled gains: against dense conditioning of a Gaussian, a closed form for unlike slots, simulated truths."""

import torch
from torch import Tensor

from quadnas.search.pooling import pooled, slots_alike
from tests.toy import toy_space

STAGES, SLOTS, CANDIDATES = 30, 4, 6
COMMON, OWN = 1.0, 0.5


def grouped(stages: int, slots: int) -> Tensor:
    return torch.eye(stages, dtype=torch.float64).repeat_interleave(slots, 1)


def simulated(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """True gains, measured ones and their standard errors, which differ from gain to gain."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    common = COMMON * normal(STAGES, CANDIDATES).repeat_interleave(SLOTS, 0)
    truth = common + OWN * normal(STAGES * SLOTS, CANDIDATES)
    errors = 0.3 + torch.rand(truth.shape, dtype=torch.float64, generator=generator)
    return truth, truth + errors * normal(*truth.shape), errors


def conditioned(measured: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation by the covariance matrix of every stage and candidate, with the true variances."""
    means, deviations = torch.empty_like(measured), torch.empty_like(measured)
    prior = COMMON**2 + OWN**2 * torch.eye(SLOTS, dtype=torch.float64)
    for stage in range(STAGES):
        rows = slice(stage * SLOTS, (stage + 1) * SLOTS)
        for candidate in range(CANDIDATES):
            gain = prior @ torch.linalg.inv(prior + errors[rows, candidate].square().diag())
            means[rows, candidate] = gain @ measured[rows, candidate]
            deviations[rows, candidate] = (prior - gain @ prior).diagonal().sqrt()
    return means, deviations


def test_it_is_the_conditional_distribution_with_variances_near_the_true_ones() -> None:
    for seed in range(5):
        truth, measured, errors = simulated(seed)
        means, deviations = pooled(measured, errors, grouped(STAGES, SLOTS))
        best_means, best_deviations = conditioned(measured, errors)
        assert (means - best_means).square().mean() < 0.03 * (measured - best_means).square().mean()
        torch.testing.assert_close(deviations, best_deviations, rtol=0.25, atol=0)
        assert (means - truth).square().mean() < 0.6 * (measured - truth).square().mean()


def test_slots_that_are_unlike_shrink_to_nothing_by_the_closed_form() -> None:
    """With one error e for all, the factor is 1 - e^2 / mean square (James and Stein)."""
    _, measured, _ = simulated(0)
    errors = torch.full_like(measured, 0.7)
    means, deviations = pooled(measured, errors, torch.eye(len(measured), dtype=torch.float64))
    factor = 1 - 0.49 / measured.square().mean()
    torch.testing.assert_close(means, factor * measured, rtol=1e-12, atol=0)
    torch.testing.assert_close(deviations, errors * factor.sqrt(), rtol=1e-12, atol=0)


def test_slots_that_differ_by_noise_alone_come_close_to_their_average() -> None:
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(1, CANDIDATES, dtype=torch.float64, generator=generator)
    noise = 0.01 * torch.randn(8, CANDIDATES, dtype=torch.float64, generator=generator)
    measured = row + noise
    means, deviations = pooled(measured, torch.full_like(measured, 0.02), grouped(1, 8))
    assert (means - row).square().mean() < 0.25 * noise.square().mean()
    assert 0.02 / 8**0.5 < deviations.min() <= deviations.max() < 0.7 * 0.02


def test_gains_lost_in_noise_keep_their_order() -> None:
    """Moments alone would estimate variances of 0, and the knapsack would choose by chance."""
    _, measured, _ = simulated(0)
    rows = measured[:8] - measured[:8].mean(0)
    for groups in (grouped(2, 4), torch.eye(8, dtype=torch.float64)):
        means, _ = pooled(rows, torch.full_like(rows, 100.0), groups)
        assert (means.argsort(1) == rows.argsort(1)).double().mean() > 0.5
        assert 0 < means.abs().max() < 0.5 * rows.abs().max()


def test_what_was_measured_exactly_or_never_stays() -> None:
    _, measured, errors = simulated(0)
    groups = grouped(STAGES, SLOTS)
    assert all(
        torch.equal(one, other)
        for one, other in zip(pooled(measured, 0 * errors, groups), (measured, 0 * errors), strict=True)
    )
    measured[5, 2] = errors[5, 2] = 0.0
    means, deviations = pooled(measured, errors, groups)
    assert means[5, 2] == deviations[5, 2] == 0
    assert means.isfinite().all() and (deviations <= errors).all()
    without = torch.arange(SLOTS * STAGES) != 5
    alone, _ = pooled(measured[without], errors[without], groups[:, without])
    torch.testing.assert_close(means[4, 2], alone[4, 2], rtol=0.02, atol=0.02)


def test_alike_are_slots_of_a_stage_with_equal_layers() -> None:
    alike = slots_alike(toy_space((8, 8), (2, 3)))
    assert alike.tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]]
