"""The first stage of a search: train the supernet and learn the architecture parameters."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from quadnas.data.augmentation import Augmentation
from quadnas.data.base import Batch, DataSet, Split
from quadnas.data.batches import batches_per_epoch
from quadnas.data.order import stable_seed
from quadnas.run.checkpoint import Checkpoint
from quadnas.run.events import ArchitectureStep, LimitStep, PhaseStarted, WeightStep
from quadnas.run.session import Session, Snapshot
from quadnas.search.objective import architecture_loss
from quadnas.search.problem import Problem
from quadnas.search.strategy import ArchitectureLearner, Moment, OneShot
from quadnas.training.distributed import ALONE, Ranks
from quadnas.training.loop import (
    Criterion,
    Learner,
    Loss,
    StepReport,
    batch_stream,
    require_finite,
    step_generator,
    train,
)
from quadnas.training.state import under_prefix, with_prefix

NAME = "supernet"


class SupernetStage:
    """Warm-up (weights only), then search (an architecture step after every few weight steps)."""

    def __init__(
        self,
        problem: Problem,
        strategy: OneShot,
        data: DataSet,
        train_size: int,
        device: torch.device,
        session: Session,
        ranks: Ranks = ALONE,
    ) -> None:
        self._problem, self._data, self._size, self._session = problem, data, train_size, session
        self._strategy, self._ranks = strategy, ranks
        strategy.ranks = ranks
        self._learned = strategy if isinstance(strategy, ArchitectureLearner) else None
        settings = problem.settings
        self._seed = settings.seed
        self._recipe = settings.recipe
        strategy.supernet.to(device)
        self._learner = Learner(
            strategy.supernet, self._recipe, settings.seed, losses=self._losses, ranks=ranks
        )
        per_epoch = batches_per_epoch(len(data.train), settings.recipe.batch_size)
        self._warmup = settings.schedule.warmup_epochs * per_epoch
        self._steps = self._warmup + settings.schedule.search_epochs * per_epoch
        self._every = settings.schedule.architecture_every

    def run(self, checkpoint: Checkpoint | None) -> None:
        """Train from the start, or from a checkpoint of this stage, to the end."""
        done = 0
        if checkpoint:
            self._restore(checkpoint)
            done = checkpoint.step
        self._held_out = self._batches(
            self._data.held_out,
            stable_seed("held out", self._seed),
            max(0, done - self._warmup) // self._every,
            self._recipe.augmentation.without_mixing(),
        )
        for phase, stop in (("warm-up", self._warmup), ("search", self._steps)):
            if done < stop:
                self._session.emit(PhaseStarted(phase, done, stop))
                batches = self._batches(self._data.train, self._seed, done, self._recipe.augmentation)
                train(self._learner, batches, (done, stop, self._steps), self._after_step)
                self._session.commit(stop, self._snapshot)
                done = stop

    def _batches(self, split: Split, seed: int, start: int, augmentation: Augmentation) -> Iterator[Batch]:
        return batch_stream(
            split,
            self._recipe.batch_size,
            size=self._size,
            seed=seed,
            start=start,
            augmentation=augmentation,
            shard=self._ranks.shard,
        )

    def _losses(self, piece: Batch, criterion: Criterion, step: int) -> Iterator[Loss]:
        moment = Moment(step, warming_up=step < self._warmup, seed=self._seed)
        return self._strategy.losses(piece, criterion, moment)

    def _after_step(self, report: StepReport) -> None:
        phase = "warm-up" if report.step <= self._warmup else "search"
        self._session.emit(
            WeightStep(phase, report.step, self._steps, report.loss, report.accuracy, report.learning_rate)
        )
        searched = report.step - self._warmup
        if self._learned and searched > 0 and searched % self._every == 0:
            self._architecture_step(self._learned, report.step)
        self._session.step_done(report.step, self._snapshot)

    def _architecture_step(self, strategy: ArchitectureLearner, step: int) -> None:
        problem = self._problem
        # no scale keeps the gradients of gates from vanishing in fp16
        precise = nullcontext() if self._recipe.precision == "fp16" else self._learner.autocast()
        with precise:
            update = strategy.update_architecture(
                self._held_out, step_generator(self._seed, "gates", step), self._architecture_loss
            )
        where = f"the architecture step after step {step}"
        require_finite("loss", update.loss, where)
        require_finite("sum of the probabilities", strategy.probabilities().sum().item(), where)
        multipliers = strategy.hold() or (0.0,) * len(problem.limits)
        probabilities = strategy.probabilities()
        argmax = probabilities.argmax(1).tolist()
        first, *others = self._limit_steps(argmax, torch.from_numpy(probabilities), multipliers)
        gains = strategy.gains()
        self._session.emit(
            ArchitectureStep(
                step=step,
                loss=update.loss,
                accuracy=update.accuracy,
                expected_ms=first.expected,
                argmax_ms=first.argmax,
                limit_ms=first.limit,
                multiplier=first.multiplier,
                probabilities=self._rows(probabilities.tolist()),
                gains=gains and self._rows(gains[0].tolist()),
                gain_errors=gains and self._rows(gains[1].tolist()),
                beside=tuple(others),
            )
        )

    def _limit_steps(
        self, argmax: Sequence[int], probabilities: Tensor, multipliers: Sequence[float]
    ) -> list[LimitStep]:
        return [
            LimitStep(
                limit.name,
                limit.unit,
                expected=limit.costs.expected(probabilities).item(),
                argmax=limit.costs.of(argmax),
                limit=limit.value,
                multiplier=multiplier,
            )
            for limit, multiplier in zip(self._problem.limits, multipliers, strict=True)
        ]

    def _rows(self, values: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
        """A value for every candidate that a slot has."""
        return tuple(
            tuple(round(value, 5) for value in row[: len(slot.candidates)])
            for row, slot in zip(values, self._problem.space.slots, strict=True)
        )

    def _architecture_loss(self, task: Tensor, probabilities: Tensor) -> Tensor:
        problem = self._problem
        return architecture_loss(
            "multiplier" if problem.unlimited else problem.settings.latency_loss,
            task,
            problem.bounds.expected(probabilities),
            problem.limit_ms,
        )

    def _snapshot(self) -> Snapshot:
        learned = self._learned.state() if self._learned else {}
        tensors = {**self._learner.state(), **with_prefix("strategy", learned)}
        return tensors, {"stage": NAME}

    def _restore(self, checkpoint: Checkpoint) -> None:
        self._learner.load_state(checkpoint.tensors)
        if self._learned:
            self._learned.load_state(under_prefix("strategy", checkpoint.tensors))
