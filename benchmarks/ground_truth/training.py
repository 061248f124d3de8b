"""Training the networks of a plan, one thread each, by as many processes as there are to share it."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch

from benchmarks.ground_truth.answers import SearchTable, chosen_networks
from benchmarks.ground_truth.fit import finalists
from benchmarks.ground_truth.plan import (
    ANSWER_SEEDS,
    FINAL_SEEDS,
    Choices,
    Training,
    Truth,
    latency_tables,
    network_of,
    plan,
    relative_costs,
    stratified,
)
from benchmarks.ground_truth.sharing import Job, in_processes, work_off
from benchmarks.ground_truth.table import Row, TruthTable
from quadnas.compare.networks import latencies_ms, size_of
from quadnas.data.base import DataSet, load_data
from quadnas.data.batches import batches_per_epoch
from quadnas.errors import CoverageError
from quadnas.latency.table import CostTable
from quadnas.network import load_space
from quadnas.space.architecture import Architecture
from quadnas.space.model_spec import IMAGENET_INPUT, ModelSpec
from quadnas.space.search_space import SearchSpace
from quadnas.training.evaluation import evaluate
from quadnas.training.loop import Learner, batch_stream, train
from quadnas.training.standalone import new_network


@dataclass(frozen=True)
class Workshop:
    """What every training of a truth needs."""

    truth: Truth
    space: SearchSpace
    data: DataSet
    tables: dict[str, CostTable]

    def train(self, training: Training, clock: Callable[[], float] = time.process_time) -> Row:
        """Train one network from scratch: the same numbers for the same training, but for its seconds."""
        truth, data, began = self.truth, self.data, clock()
        layers = self.space.layers(training.choices, len(data.classes))
        spec = ModelSpec(name="truth", input=IMAGENET_INPUT, classes=data.classes, layers=layers)
        network = new_network(spec, training.seed)
        recipe = truth.recipe
        recipe.prepare(network)
        steps = truth.epochs * batches_per_epoch(len(data.training), recipe.batch_size)
        batches = batch_stream(
            data.training, recipe.batch_size,
            size=truth.train_size, seed=training.seed, start=0, augmentation=recipe.augmentation,
        )  # fmt: skip
        learner = Learner(network, recipe, training.seed)
        train(learner, batches, (0, steps, steps), lambda _: None)
        score = evaluate(network, data.test, size=truth.train_size)
        costs = latencies_ms(layers, truth.input_size, truth.devices)
        return Row(
            architecture=self.name(training),
            seed=training.seed,
            accuracy=score.accuracy,
            loss=round(score.loss, 6),
            seconds=round(clock() - began, 1),
            latency_ms={device: _rounded(costs[f"{device}_ms"]) for device in truth.devices},
            **size_of(layers, truth.input_size),
        )

    def name(self, training: Training) -> str:
        """The canonical text of its architecture."""
        return str(self.space.architecture(training.choices))

    def planned(self, rows: Iterable[Row]) -> list[Training]:
        """What of the plan is not among the rows, in order."""
        done = {(row.architecture, row.seed) for row in rows}
        trainings = plan(self.truth, self.architectures)
        return [training for training in trainings if (self.name(training), training.seed) not in done]

    @cached_property
    def architectures(self) -> list[Choices]:
        """The networks of the plan, cheapest first."""
        return stratified(relative_costs(list(self.tables.values())), self.truth.networks)

    def final(self, rows: Sequence[Row], chosen: Iterable[str] = ()) -> list[Training]:
        """The trainings of finalists and of what searches chose that are not among the rows, each network once.

        ``rows`` hold all that was planned. Seed by seed, so that every beginning is of use.
        """
        best = finalists(self.truth, self.space, self.tables, rows)
        answers = [self.space.choices(Architecture.parse(name)) for name in chosen]
        found: dict[tuple[str, int], Training] = {}
        for seed in FINAL_SEEDS:
            for choices in (*best, *(answers if seed in ANSWER_SEEDS else ())):
                found.setdefault((network_of(self.space, choices), seed), Training(choices, seed))
        for row in rows:
            found.pop((network_of(self.space, row.architecture), row.seed), None)
        return list(found.values())


def _rounded(latency_ms: float | None) -> float:
    assert latency_ms is not None, "the plan asks for devices that price every candidate"
    return round(latency_ms, 4)


def open_workshop(truth: Truth) -> Workshop:
    """Load space, data and devices; raises ConfigError, DataError, CoverageError (a candidate without a price)."""
    space, data = load_space(truth.space), load_data(truth.data, limit=truth.train_images)
    tables = latency_tables(truth, space, len(data.classes))
    if unpriced := [device for device, table in tables.items() if not table.priced.all()]:
        raise CoverageError(
            f"{', '.join(unpriced)}: no price for some candidates of {space.name}; drop the device"
        )
    return Workshop(truth, space, data, tables)


def work(
    truth: Truth,
    out: Path,
    searches: Path,
    *,
    sleep: Callable[[float], None] = time.sleep,
    observe: Callable[[Row], None] = lambda _: None,
) -> None:
    """Train what is not in the table ``out`` yet and nobody else is training, until all is done.

    That is the plan, then the finalists that follow from it, then what was chosen by the ``searches`` made so far.
    """
    torch.set_num_threads(1)
    workshop = open_workshop(truth)

    def missing(rows: Sequence[Row]) -> Iterator[Job[Row]]:
        wanted = workshop.planned(rows)
        if not wanted:
            wanted = workshop.final(rows, chosen_networks(SearchTable(searches).rows()))
        for training in wanted:
            yield (workshop.name(training), training.seed), partial(workshop.train, training)

    table = TruthTable(out, truth.header(workshop.space, workshop.data, workshop.architectures))
    work_off(table, missing, sleep=sleep, observe=observe)


def work_together(truth: Truth, out: Path, searches: Path, processes: int) -> None:
    """``work`` in so many processes; raises MachineError if one of them fails."""
    in_processes(_worker, (truth, out, searches), processes)


def _worker(truth: Truth, out: Path, searches: Path) -> None:
    work(
        truth,
        out,
        searches,
        observe=lambda row: print(row.model_dump_json(exclude={"latency_ms"}), flush=True),
    )
