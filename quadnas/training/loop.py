"""The one training loop, for supernets and for plain networks."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.data.augmentation import Augmentation
from quadnas.data.base import Batch, Split
from quadnas.data.batches import batches_per_epoch, minibatches
from quadnas.data.draws import WHOLE, Shard
from quadnas.data.order import stable_seed
from quadnas.errors import ConfigError
from quadnas.training.distributed import ALONE, Ranks, without_exchange
from quadnas.training.ema import averaged
from quadnas.training.recipe import Recipe
from quadnas.training.state import (
    optimizer_tensors,
    own_tensors,
    restore_optimizer,
    restore_scaler,
    restore_tensors,
    scaler_tensors,
    under_prefix,
    with_prefix,
)

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class StepReport:
    """One update of the weights: its number (from 1), training loss, fraction correct, learning rate."""

    step: int
    loss: float
    accuracy: float
    learning_rate: float


Criterion = Callable[[Tensor, Tensor], Tensor]
"""Logits (N, classes) and labels -> the loss ()."""


class Loss(NamedTuple):
    """One loss () of a step, to be propagated backward, and the logits (N, classes) behind it."""

    value: Tensor
    logits: Tensor


Losses = Callable[[Batch, Criterion, int], Iterator[Loss]]
"""A piece of a batch, the recipe's criterion and the step -> losses, each propagated before the next is made."""


class Learner:
    """A module with all that changes it: its optimiser, its loss scale, and the average that follows it.

    Gradients are averaged over the ``ranks`` that share its batches: while they are computed if ``losses`` are, by
    default, the one of ``module``, else once all are propagated, of the parameters that took part (every rank must
    give losses of the same). ``ema_decay`` is that of the recipe, for a module that is to be averaged.
    """

    def __init__(
        self,
        module: nn.Module,
        recipe: Recipe,
        seed: int,
        *,
        losses: Losses | None = None,
        ema_decay: float | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.module, self._recipe, self._seed, self._ranks = module, recipe, seed, ranks
        self.average = averaged(module, ema_decay) if ema_decay else None
        self._parallel = module if losses else ranks.parallel(module)
        if losses:
            ranks.share_statistics(module)
        self._losses = losses or self._own_loss
        self._optimizer = recipe.optimizer(module)
        self._device = next(module.parameters()).device
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=recipe.precision == "fp16")

    def step(self, batch: Batch, number: int, steps: int) -> StepReport:
        """Update the weights by this rank's share of a batch, as step ``number`` (from 0) of ``steps``.

        Raises ConfigError before the update if loss or gradient is not finite: no such weights are ever
        committed. Only a scaled loss may have a gradient that overflows, which is not applied.
        """
        rate = self._recipe.learning_rate(number, steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        with step_randomness(self._seed, number, self._ranks.rank, self._device):
            seen = self._backward(batch, number)
        if self._parallel is self.module:
            self._ranks.average_gradients(self.module.parameters())
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self._recipe.clip_norm)
        # one copy to the host, and so one wait for the device, in the whole step
        loss, accuracy, norm_value = torch.stack([*self._ranks.mean(seen), norm.double()]).tolist()
        self._refuse_divergence(loss, norm_value, f"step {number + 1} with learning rate {rate:.3g}")
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self.average:
            self.average.update_parameters(self.module)
        return StepReport(number + 1, loss, accuracy, rate)

    def _backward(self, batch: Batch, number: int) -> Tensor:
        """Gradients of the mean loss, piece by piece; returns (loss, fraction correct) of this rank's share."""
        count, done = len(batch.images), 0
        seen = torch.zeros(2, dtype=torch.float64, device=self._device)
        for piece in pieces(batch, self._recipe.gradient_accumulation):
            share = len(piece.images) / count
            done += len(piece.images)
            with without_exchange(self._parallel, done < count):
                first = self._propagate(piece, number, share)
            seen += share * torch.stack([first.value.detach(), accuracy_of(first.logits, piece)])
        return seen

    def _propagate(self, piece: Batch, number: int, share: float) -> Loss:
        """Propagate all losses of a piece, which is ``share`` of its batch; returns the first of them."""
        losses = self._losses(piece, self._criterion, number)
        first: Loss | None = None
        while True:
            with self.autocast():
                loss = next(losses, None)
            if loss is None:
                assert first is not None
                return first
            self._scaler.scale(loss.value * share).backward()
            first = first or Loss(loss.value.detach(), loss.logits.detach())

    def _own_loss(self, piece: Batch, criterion: Criterion, _: int) -> Iterator[Loss]:
        logits = self._parallel(piece.images)
        yield Loss(criterion(logits, piece.labels), logits)

    def _criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self._recipe.label_smoothing)

    def autocast(self) -> torch.autocast:
        """Inside, forward passes are in the precision of the recipe."""
        dtype = AUTOCAST[self._recipe.precision]
        return torch.autocast(self._device.type, dtype, enabled=dtype is not None)

    def _refuse_divergence(self, loss: float, norm: float, where: str) -> None:
        require_finite("training loss", loss, where)
        overflow = self._scaler.is_enabled() and not math.isfinite(norm) and self._scaler.get_scale() >= 1
        if not overflow:  # else the scaler skips the update and halves its scale
            require_finite("norm of the gradient", norm, where)

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, as references."""
        average = own_tensors(self.average) if self.average else {}
        return {
            **with_prefix("network", own_tensors(self.module)),
            **with_prefix("weights", optimizer_tensors(self._optimizer)),
            **with_prefix("average", average),
            **with_prefix("scaler", scaler_tensors(self._scaler)),
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave, from a mapping that may hold other names too."""
        restore_tensors(self.module, under_prefix("network", tensors))
        restore_optimizer(self._optimizer, under_prefix("weights", tensors))
        if self.average:
            restore_tensors(self.average, under_prefix("average", tensors))
        restore_scaler(self._scaler, under_prefix("scaler", tensors))


def train(
    learner: Learner,
    batches: Iterator[Batch],
    steps: tuple[int, int, int],
    after_step: Callable[[StepReport], None],
) -> None:
    """Let ``learner`` learn; ``steps`` is (done already, stop after, length of the rate schedule).

    Raises ConfigError as ``Learner.step``, and whatever ``after_step`` raises.
    """
    learner.module.train()
    done, stop, total = steps
    for number in range(done, stop):
        after_step(learner.step(next(batches), number, total))


def batch_stream(
    split: Split,
    batch_size: int,
    *,
    size: int,
    seed: int,
    start: int,
    augmentation: Augmentation,
    shard: Shard = WHOLE,
) -> Iterator[Batch]:
    """Batches without end from number ``start`` on, shuffled epoch after epoch; ``shard``: one rank's part."""
    per_epoch = batches_per_epoch(len(split), batch_size)
    while True:
        epoch, index = divmod(start, per_epoch)
        yield from minibatches(
            split,
            batch_size,
            size=size,
            seed=seed,
            epoch=epoch,
            start=index,
            augmentation=augmentation,
            shard=shard,
        )
        start = (epoch + 1) * per_epoch


def step_generator(seed: int, purpose: str, step: int) -> torch.Generator:
    """The random numbers of one step for one purpose; nothing random outlives a step."""
    return torch.Generator().manual_seed(stable_seed(purpose, seed, step))


@contextmanager
def step_randomness(seed: int, step: int, rank: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's global generators, from which drop-path draws, are a function of the arguments."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(stable_seed("drop path", seed, step, rank))
        yield


def accuracy_of(logits: Tensor, batch: Batch) -> Tensor:
    """Fraction of (N, classes) logits whose largest is that of the batch's labels; a scalar on their device."""
    return (logits.detach().argmax(1) == batch.classes).double().mean()


def pieces(batch: Batch, count: int) -> Iterator[Batch]:
    """The batch in ``count`` pieces, or as many as there are images."""
    return map(Batch, batch.images.chunk(count), batch.labels.chunk(count))


def require_finite(what: str, value: float, where: str) -> float:
    """The value; raises ConfigError if training diverged and it is NaN or infinite."""
    if not math.isfinite(value):
        raise ConfigError(
            f"training diverged: the {what} became {value} at {where}; nothing of that step is kept and the "
            "last commit is intact: start again with a lower rate (recipe.rate)"
        )
    return value
