"""Exact swaps: the loss of a path with one candidate replaced, for every slot and candidate."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.data.base import Batch
from quadnas.ops.statistics import statistics_kept
from quadnas.supernet.supernet import Supernet, SupernetSlot


@torch.no_grad()
def swap_losses(supernet: Supernet, batches: Iterable[Batch], path: Sequence[int], asked: Tensor) -> Tensor:
    """Mean cross-entropy (slots, most candidates), double; NaN where not ``asked`` (slots, most candidates) bool.

    What runs before a slot runs once for all its candidates. Batch normalisation uses the statistics of each
    batch.
    """
    supernet.train()
    totals = torch.zeros(asked.shape, dtype=torch.float64)
    count = 0
    positions = list(supernet.positions)
    with statistics_kept(supernet):
        for batch in batches:
            count += len(batch.images)
            slot = 0
            x = batch.images.contiguous(memory_format=torch.channels_last)
            for number, position in enumerate(positions):
                if not isinstance(position, SupernetSlot):
                    x = position(x)
                    continue
                for candidate in asked[slot].nonzero()[:, 0].tolist():
                    logits = _rest(positions[number:], x, (candidate, *path[slot + 1 :]))
                    totals[slot, candidate] += F.cross_entropy(logits, batch.labels, reduction="sum").item()
                x = position(x, path[slot])
                slot += 1
    return (totals / count).masked_fill(~asked, torch.nan)


def _rest(positions: Sequence[nn.Module], x: Tensor, path: Sequence[int]) -> Tensor:
    choices = iter(path)
    for position in positions:
        x = position(x, next(choices)) if isinstance(position, SupernetSlot) else position(x)
    return x
