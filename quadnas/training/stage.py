"""Training a plain network as a stage of a run: journaled, committed, resumable at any step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from quadnas.data.base import Split
from quadnas.data.batches import batches_per_epoch
from quadnas.network import Network
from quadnas.run.checkpoint import Checkpoint
from quadnas.run.events import Evaluated, PhaseStarted, WeightStep
from quadnas.run.session import Session, Snapshot
from quadnas.training.distributed import ALONE, Ranks
from quadnas.training.evaluation import Score, evaluate
from quadnas.training.loop import Learner, StepReport, batch_stream, train
from quadnas.training.recipe import Recipe

NAME = "training"


@dataclass(frozen=True)
class Trained:
    """A network with its last weights and, if the recipe averages them, another one with their average."""

    last: Network
    average: Network | None

    @property
    def kept(self) -> Network:
        """The one to export."""
        return self.average or self.last


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
        ranks: Ranks = ALONE,
    ) -> None:
        self._network, self._split, self._recipe, self._session = network, split, recipe, session
        self._size, self._seed, self._findings, self._ranks = size, seed, dict(findings), ranks
        recipe.prepare(network)
        self._learner = Learner(network, recipe, seed, ema_decay=recipe.ema_decay, ranks=ranks)
        self._steps = epochs * batches_per_epoch(len(split), recipe.batch_size)

    def run(self, checkpoint: Checkpoint | None) -> Trained:
        """Train to the end, from the weights that the network has or on from a checkpoint of this stage."""
        done = 0
        if checkpoint:
            self._learner.load_state(checkpoint.tensors)
            done = checkpoint.step
        else:
            self._session.commit(0, self._snapshot)
        self._session.emit(PhaseStarted(NAME, done, self._steps))
        batches = batch_stream(
            self._split,
            self._recipe.batch_size,
            size=self._size,
            seed=self._seed,
            start=done,
            augmentation=self._recipe.augmentation,
            shard=self._ranks.shard,
        )
        train(self._learner, batches, (done, self._steps, self._steps), self._after_step)
        self._session.commit(self._steps, self._snapshot)
        average = self._learner.average
        return Trained(self._network, cast(Network, average.module) if average else None)

    def _after_step(self, report: StepReport) -> None:
        self._session.emit(
            WeightStep(NAME, report.step, self._steps, report.loss, report.accuracy, report.learning_rate)
        )
        self._session.step_done(report.step, self._snapshot)

    def _snapshot(self) -> Snapshot:
        return self._learner.state(), {"stage": NAME, **self._findings}


def scored(
    trained: Trained, split: Split, session: Session, *, label: str, size: int, ranks: Ranks = ALONE
) -> Score:
    """The score on the test ``split`` of what is kept; every set of weights is evaluated and told.

    The events call the network ``label``, the last weights beside an average ``label (last weights)``.
    """

    def evaluated(network: Network, name: str) -> Score:
        found = evaluate(network, split, size=size, after_batch=session.batch_evaluated, ranks=ranks)
        session.emit(Evaluated(name, "test", found.accuracy, found.loss, found.images))
        return found

    if trained.average:
        evaluated(trained.last, f"{label} (last weights)")
    return evaluated(trained.kept, label)
