"""Accuracy of networks that are trained alike, over several seeds, beside what they cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median, stdev

from matplotlib.figure import Figure

from quadnas.compare.experiment import KINDS, Bench, Record, Seeds, Unit, Work
from quadnas.compare.figures import bars, points_panel, value_panel
from quadnas.compare.networks import (
    Count,
    NetworkExperiment,
    cost_columns,
    fingerprint,
    latencies_ms,
    latency_key,
    require_devices,
    size_of,
    unpriced_note,
)
from quadnas.compare.statistics import pooled_noise
from quadnas.compare.table import Column, Table, Value
from quadnas.data.base import load_data
from quadnas.network import require_size
from quadnas.run.events import Event, Observer, WeightStep
from quadnas.run.folder import RunFolder
from quadnas.space.model_spec import ModelSpec
from quadnas.training.device import arithmetic, compute_device
from quadnas.training.recipe import Recipe
from quadnas.training.standalone import TrainSettings, new_run, train_network, with_classes_of


@KINDS.register("training")
class Training(NetworkExperiment):
    """Every arm is trained from scratch with every seed, as ``quadnas train`` does it.

    ``data``, ``train_size``, ``train_images``, ``epochs`` and ``recipe`` are those of every training; ``devices``
    are predicted at ``input_size``.
    """

    data: str
    train_size: Count | None = None
    train_images: Count | None = None
    epochs: Count
    seeds: Seeds = (0,)
    recipe: Recipe = Recipe()
    devices: tuple[str, ...] = ()

    def prepare(self) -> "TrainingWork":
        """Load the data and lay out every network."""
        return TrainingWork(self)

    def units(self) -> tuple[Unit, ...]:
        """Seed by seed, so that a table with one seed of every arm is there first."""
        return tuple(Unit(arm, f"seed{seed}") for seed in self.seeds for arm in self.arms)

    def columns(self) -> tuple[Column, ...]:
        """Accuracy first; its deviation is that of single trainings."""
        return (
            Column("accuracy", "accuracy, %", 2, 100),
            *([Column("deviation", "+- over seeds", 2, 100)] if len(self.seeds) > 1 else []),
            Column("step_ms", "training step, ms", 1),
            *cost_columns(self.devices, self.input_size),
        )

    def row(self, arm: str, records: Sequence[Record]) -> dict[str, Value]:
        """Over the seeds."""
        accuracies = [record["accuracy"] for record in records]
        steps_ms = [record["step_ms"] for record in records if record["step_ms"] is not None]
        first = records[0]
        return {
            "accuracy": fmean(accuracies),
            "deviation": stdev(accuracies) if len(accuracies) > 1 else None,
            "step_ms": median(steps_ms) if steps_ms else None,
            **{key: first[key] for key in ("parameters", "macs", *map(latency_key, self.devices))},
        }

    def notes(self, records: Mapping[str, Sequence[Record]]) -> tuple[str, ...]:
        """How they were trained, and what of the differences is noise."""
        found = {arm: [record["accuracy"] for record in rows] for arm, rows in records.items()}
        noise = pooled_noise(found.values())
        size = next(iter(records.values()))[0] if records else {}
        trained = (
            f"{self.epochs} epochs of {size.get('images', 0):,} images of {self.data} at {size.get('train_size')} "
            f"pixels, seeds {', '.join(map(str, self.seeds))}; a step is {self.recipe.batch_size} images."
        )
        if noise is None:
            return (trained, *unpriced_note(self._costs(records), self.devices))
        least = noise.significant(min(len(values) for values in found.values()))
        return (
            trained,
            f"One training deviates by {100 * noise.deviation:.2f} points ({noise.freedom} degrees of freedom): "
            f"arms less than {100 * least:.2f} points apart cannot be told from equals (95 %, one comparison).",
            *unpriced_note(self._costs(records), self.devices),
        )

    def draw(self, table: Table, records: Mapping[str, Sequence[Record]]) -> Figure:
        """The accuracy of every seed, and the costs."""
        seeds = [[record["accuracy"] for record in records.get(row.arm, ())] for row in table.rows]
        keys = ["step_ms", "macs", *map(latency_key, self.devices)]
        return bars(
            table.rows, [points_panel(table, "accuracy", seeds), *(value_panel(table, k) for k in keys)]
        )

    def _costs(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Record]:
        return {arm: rows[0] for arm, rows in records.items()}


class TrainingWork(Work):
    """The networks with the classes of the data; the data themselves are read anew by every training."""

    def __init__(self, experiment: Training) -> None:
        self._experiment = experiment
        require_devices(experiment.devices)
        data = load_data(experiment.data, limit=experiment.train_images)
        self._size = experiment.train_size or data.default_train_size
        designs = experiment.specs()

        def trainable(arm: str) -> ModelSpec:
            spec = with_classes_of(designs[arm], data)
            require_size(spec.layers, self._size)
            return spec

        self._specs = experiment.for_each_arm(trainable)
        self._images = len(data.training)
        self.inputs: Mapping[str, object] = {
            **fingerprint(self._specs),
            "data": data.identity,
            **arithmetic(compute_device()),
        }

    def measure(self, unit: Unit, bench: Bench) -> Record:
        """Train one network with one seed, in a run folder of its own."""
        spec, settings = self._specs[unit.arm], self._experiment
        path, trained = bench.path(unit), _settings(settings, spec, int(unit.part.removeprefix("seed")))
        timer = StepTimer(bench.observe, bench.clock)
        with RunFolder.open(path) if RunFolder.exists(path) else new_run(trained, path) as folder:
            score = train_network(folder, timer, bench.stop)
        return {
            "accuracy": score.accuracy,
            "loss": score.loss,
            "step_ms": None if bench.shared else timer.median_ms,
            "images": self._images,
            "train_size": self._size,
            **size_of(spec.layers, settings.input_size),
            **latencies_ms(spec.layers, settings.input_size, settings.devices),
        }


def _settings(experiment: Training, spec: ModelSpec, seed: int) -> TrainSettings:
    return TrainSettings(
        model=spec,
        data=experiment.data,
        train_size=experiment.train_size,
        train_images=experiment.train_images,
        epochs=experiment.epochs,
        seed=seed,
        recipe=experiment.recipe,
    )


@dataclass(slots=True)
class StepTimer:
    """Passes events on and notes the seconds from one weight step to the next."""

    observe: Observer
    clock: Callable[[], float]
    _last: float | None = None
    _seconds: list[float] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """See ``Observer``."""
        self.observe(event)
        if isinstance(event, WeightStep):
            now = self.clock()
            if self._last is not None:
                self._seconds.append(now - self._last)
            self._last = now

    @property
    def median_ms(self) -> float | None:
        """Of all steps; None if there were fewer than two."""
        return 1e3 * median(self._seconds) if self._seconds else None
