"""The one training loop, for supernets and for plain networks."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.data.base import Batch, Split
from quadnas.data.batches import batches_per_epoch, evaluation_batches, minibatches
from quadnas.data.order import stable_seed
from quadnas.errors import ConfigError
from quadnas.training.recipe import Recipe

EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True)
class StepReport:
    """One update of the weights: its number (from 1), training loss, fraction correct, learning rate."""

    step: int
    loss: float
    accuracy: float
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Score:
    """A network on a split: fraction correct, mean cross-entropy, images."""

    accuracy: float
    loss: float
    images: int


def step_generator(seed: int, purpose: str, step: int) -> torch.Generator:
    """The random numbers of one step for one purpose; nothing random outlives a step."""
    return torch.Generator().manual_seed(stable_seed(purpose, seed, step))


def batch_stream(
    split: Split, batch_size: int, *, size: int, seed: int, start: int, augment: bool
) -> Iterator[Batch]:
    """Batches without end from number ``start`` on, shuffled epoch after epoch."""
    per_epoch = batches_per_epoch(len(split), batch_size)
    while True:
        epoch, index = divmod(start, per_epoch)
        yield from minibatches(
            split, batch_size, size=size, seed=seed, epoch=epoch, start=index, augment=augment
        )
        start = (epoch + 1) * per_epoch


def train(
    module: nn.Module,
    forward: Callable[[Tensor, int], Tensor],
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    steps: tuple[int, int, int],
    after_step: Callable[[StepReport], None],
) -> None:
    """Update the weights of ``module``; ``steps`` is (done already, stop after, length of the rate schedule).

    ``forward(images, step)`` gives the logits. Raises ConfigError before the update if loss or gradient is
    not finite: no such weights are ever committed.
    """
    module.train()
    done, stop, total = steps
    for step in range(done, stop):
        batch = next(batches)
        rate = recipe.learning_rate(step, total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = forward(batch.images, step)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), recipe.clip_norm)
        where = f"step {step + 1} with learning rate {rate:.3g}"
        value = require_finite("training loss", loss.item(), where)
        require_finite("norm of the gradient", norm.item(), where)
        optimizer.step()
        correct = (logits.detach().argmax(1) == batch.labels).double().mean().item()
        after_step(StepReport(step + 1, value, correct, rate))


def require_finite(what: str, value: float, where: str) -> float:
    """The value; raises ConfigError if training diverged and it is NaN or infinite."""
    if not math.isfinite(value):
        raise ConfigError(
            f"training diverged: the {what} became {value} at {where}; nothing of that step is kept and the "
            "last commit is intact: start again with a lower rate (recipe.rate)"
        )
    return value


@torch.no_grad()
def evaluate(
    network: nn.Module, split: Split, *, size: int, after_batch: Callable[[], None] = lambda: None
) -> Score:
    """Accuracy and loss of a network on a whole split at ``size`` x ``size`` pixels.

    Raises ConfigError if the loss is not finite, and whatever ``after_batch`` raises.
    """
    network.eval()
    correct = images = 0
    loss = 0.0
    for batch in evaluation_batches(split, EVALUATION_BATCH, size=size):
        logits = network(batch.images)
        loss += F.cross_entropy(logits, batch.labels, reduction="sum").item()
        correct += int((logits.argmax(1) == batch.labels).sum())
        images += len(batch.labels)
        after_batch()
    if not math.isfinite(loss):
        raise ConfigError(
            f"the loss on {images} images is {loss}: the weights are too large for float32; train them anew "
            "with a lower learning rate (recipe.rate)"
        )
    return Score(correct / images, loss / images, images)
