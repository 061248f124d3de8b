"""What slots of a stage tell each other about the candidates that they share: empirical Bayes.

The gain of a candidate in a slot is modelled as what it is in all slots that are alike, plus what it is in this
slot alone, plus the error of measurement. How large the first two are, the gains themselves say.
Source: Efron and Morris, Journal of the American Statistical Association 70 (1975).
"""

import torch
from torch import Tensor

from quadnas.space.search_space import SearchSpace

EXACT = 1e-30
"""The least variance that is divided by."""


def slots_alike(space: SearchSpace) -> Tensor:
    """(groups, slots) of 0 and 1: the slots of a stage that choose among equal layers, each slot in one group."""
    kinds = [(slot.stage, list(slot.candidates.values())) for slot in space.slots]
    first = [number for number, kind in enumerate(kinds) if kinds.index(kind) == number]
    return torch.tensor([[kind == kinds[number] for kind in kinds] for number in first]).double()


def pooled(gains: Tensor, errors: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior means and standard deviations of gains with standard errors, (slots, most candidates) each.

    ``groups``: see ``slots_alike``. What has no error, being exact or never measured, stays and tells nothing.
    """
    noise = errors.square()
    measured = noise > 0
    common, own = _variances(gains, noise, groups)
    weights = measured / (own + noise).clamp_min(EXACT)
    certainty = groups @ weights + 1 / common.clamp_min(EXACT)
    centre = groups.T @ (groups @ (weights * gains) / certainty)
    kept = own * weights
    means = centre + kept * (gains - centre)
    variances = kept * noise + (1 - kept).square() * (groups.T @ (1 / certainty))
    return means.where(measured, gains), variances.sqrt().where(measured, errors)


def _variances(gains: Tensor, noise: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Of what alike slots have in common and of what each has of its own, by the method of moments.

    Each is at least what the noise could hide, or noisy gains would all become the same.
    """
    share = groups / groups.sum(1, keepdim=True)
    centre = share @ gains
    rest = 1 - (groups.T * share.T).sum(1, keepdim=True)  # (slots, 1): of its variance, outside the centre
    seen = (noise > 0).double()
    within = ((gains - groups.T @ centre).square() * seen).sum()
    own = _excess(within, (rest * noise).sum(), (rest * seen).sum())
    between = (centre.square() * (share @ seen)).sum()
    return _excess(between, (share.square() @ (noise + own * seen)).sum(), (share @ seen).sum()), own


def _excess(squares: Tensor, noise: Tensor, count: Tensor) -> Tensor:
    """Variance of ``count`` values whose squares add up to ``squares``, ``noise`` of it without them.

    At least a standard deviation of what so many squares of noise alone come to.
    """
    count = count.clamp_min(EXACT)
    return torch.maximum(squares - noise, noise * (2 / count).sqrt()) / count
