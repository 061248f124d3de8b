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
    """Of what alike slots have in common and of what each has of its own, by the method of moments."""
    share = groups / groups.sum(1, keepdim=True)
    centre = share @ gains
    alone = (groups.T * share.T).sum(1, keepdim=True)  # (slots, 1): a slot's part in its centre
    seen = (noise > 0).double()
    within = (gains - groups.T @ centre).square() * seen - (1 - alone) * noise
    own = (within.sum() / ((1 - alone) * seen).sum().clamp_min(EXACT)).clamp_min(0)
    between = centre.square() * (share @ seen) - share.square() @ (noise + own * seen)
    return (between.sum() / (share @ seen).sum().clamp_min(EXACT)).clamp_min(0), own
