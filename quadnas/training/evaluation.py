"""How good a network is on a split."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import nn
from torch.nn import functional as F

from quadnas.data.base import Split
from quadnas.data.batches import evaluation_batches
from quadnas.errors import ConfigError
from quadnas.training.distributed import ALONE, Ranks

EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True)
class Score:
    """A network on a split: fraction correct, mean cross-entropy, images."""

    accuracy: float
    loss: float
    images: int


@torch.no_grad()
def evaluate(
    network: nn.Module,
    split: Split,
    *,
    size: int,
    after_batch: Callable[[], None] = lambda: None,
    ranks: Ranks = ALONE,
) -> Score:
    """Accuracy and loss of a network on a whole split at ``size`` x ``size`` pixels, shared among ``ranks``.

    Raises ConfigError if the loss is not finite, and whatever ``after_batch`` raises, which every rank calls
    equally often.
    """
    network.eval()
    correct, loss = 0, 0.0
    rounds = range(-(-len(split) // (EVALUATION_BATCH * ranks.world)))
    batches = evaluation_batches(split, EVALUATION_BATCH, size=size, shard=ranks.shard)
    for _, batch in zip_longest(rounds, batches):
        if batch is not None:
            logits = network(batch.images)
            loss += F.cross_entropy(logits, batch.labels, reduction="sum").item()
            correct += int((logits.argmax(1) == batch.labels).sum())
        after_batch()
    all_correct, loss_sum = ranks.sum(torch.tensor([correct, loss], dtype=torch.float64)).tolist()
    if not math.isfinite(loss_sum):
        raise ConfigError(
            f"the loss on {len(split)} images is {loss_sum}: the weights are too large for float32; train them "
            "anew with a lower learning rate (recipe.rate)"
        )
    return Score(all_correct / len(split), loss_sum / len(split), len(split))
