"""Training a plain network as a stage of a run: journaled, committed, resumable at any step."""

from collections.abc import Mapping
from typing import Any

from quadnas.data.base import Split
from quadnas.data.batches import batches_per_epoch
from quadnas.network import Network
from quadnas.run.checkpoint import Checkpoint
from quadnas.run.events import PhaseStarted, WeightStep
from quadnas.run.session import Session, Snapshot
from quadnas.training.loop import StepReport, batch_stream, train
from quadnas.training.recipe import Recipe
from quadnas.training.state import optimizer_tensors, restore_optimizer, under_prefix, with_prefix

NAME = "training"


class TrainingStage:
    """Trains ``network`` in place for ``epochs`` passes over ``split`` at ``size`` pixels.

    ``findings`` are what earlier stages of the run found; every commit carries them on.
    """

    def __init__(
        self,
        network: Network,
        split: Split,
        recipe: Recipe,
        session: Session,
        *,
        epochs: int,
        size: int,
        seed: int,
        findings: Mapping[str, Any],
    ) -> None:
        self._network, self._split, self._recipe, self._session = network, split, recipe, session
        self._size, self._seed, self._findings = size, seed, dict(findings)
        self._optimizer = recipe.optimizer(network)
        self._steps = epochs * batches_per_epoch(len(split), recipe.batch_size)

    def run(self, checkpoint: Checkpoint | None) -> None:
        """Train to the end, from the weights that the network has or on from a checkpoint of this stage."""
        done = 0
        if checkpoint:
            self._network.load_state_dict(under_prefix("network", checkpoint.tensors))
            restore_optimizer(self._optimizer, under_prefix("weights", checkpoint.tensors))
            done = checkpoint.step
        else:
            self._session.commit(0, self._snapshot)
        self._session.emit(PhaseStarted(NAME, done, self._steps))
        recipe = self._recipe
        batches = batch_stream(
            self._split,
            recipe.batch_size,
            size=self._size,
            seed=self._seed,
            start=done,
            augment=recipe.augment,
        )
        train(
            self._network, lambda images, _: self._network(images), batches, self._optimizer, self._recipe,
            (done, self._steps, self._steps), self._after_step,
        )  # fmt: skip
        self._session.commit(self._steps, self._snapshot)

    def _after_step(self, report: StepReport) -> None:
        self._session.emit(
            WeightStep(NAME, report.step, self._steps, report.loss, report.accuracy, report.learning_rate)
        )
        self._session.step_done(report.step, self._snapshot)

    def _snapshot(self) -> Snapshot:
        tensors = {
            **with_prefix("network", self._network.state_dict()),
            **with_prefix("weights", optimizer_tensors(self._optimizer)),
        }
        return tensors, {"stage": NAME, **self._findings}
