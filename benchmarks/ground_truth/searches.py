"""Making the searches that are compared: the product's own, as ``rivals`` says."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.ground_truth.answers import Answer, SearchRow, SearchTable
from benchmarks.ground_truth.fit import limit_within
from benchmarks.ground_truth.plan import Truth
from benchmarks.ground_truth.rivals import BUDGET, FORWARD, RIVALS, Search, searches
from benchmarks.ground_truth.sharing import Job, in_processes, work_off
from benchmarks.ground_truth.training import Workshop, open_workshop
from quadnas.run.events import ArchitectureStep, Compared, Derived, Event, WeightStep
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.search import loop
from quadnas.search.problem import Problem, pose
from quadnas.search.selection import HELD_OUT_IMAGES, STATISTICS_BATCHES, held_out_loss
from quadnas.search.settings import Schedule, SearchSettings
from quadnas.search.strategy import ArchitectureLearner, Strategy
from quadnas.search.work import Work, prepare
from quadnas.training.distributed import ALONE, SharedSession


class Meter:
    """Counts the steps of a search and reads ``clock``, the seconds of CPU, when an answer is there."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.weight_steps = self.warmed_steps = self.updates = self.comparisons = 0
        self.answered = 0.0

    def __call__(self, event: Event) -> None:
        """Observe an event of the search."""
        if isinstance(event, WeightStep):
            self.weight_steps += 1
            self.warmed_steps += event.phase == "search"
        self.updates += isinstance(event, ArchitectureStep)
        self.comparisons += isinstance(event, Compared)
        if isinstance(event, Derived):
            self.answered = self.clock()


@dataclass(frozen=True)
class Arena:
    """Where searches run: a workshop, and the budget of each."""

    workshop: Workshop
    budget: Schedule

    def run(self, search: Search, clock: Callable[[], float] = time.process_time) -> SearchRow:
        """Train the supernet, let it answer under every limit, then rank: the same numbers but for seconds."""
        rival, (settings, *others) = RIVALS[search.strategy], self.settings(search)
        work = prepare(settings)
        problems = [work.problem, *(pose(other, work.problem.classes) for other in others)]
        fronts = [problem for whole in problems for problem in whole.front]
        meter, began = Meter(clock), clock()
        with (
            TemporaryDirectory() as path,
            RunFolder.create(Path(path) / "run", settings.model_dump(mode="json")) as folder,
        ):
            session = SharedSession(
                ALONE, folder, meter, StopFlag(), time.monotonic, settings.checkpoint_seconds, work.inputs
            )
            strategy = loop.train_supernet(work, session, None)
            trained = clock() - began
            answers = [
                _answer(work, problem, share, strategy, session, meter)
                for (_, share), problem in zip(search.points, fronts, strict=True)
            ]
            losses = self._losses(work, strategy, session) if search.ranks else ()
        steps = meter.weight_steps * rival.paths
        return SearchRow(
            strategy=search.strategy,
            seed=search.seed,
            seconds=round(trained, 1),
            path_steps=round(steps + meter.warmed_steps * rival.probe + meter.updates * rival.update, 1),
            answers=tuple(answers),
            scores=_scores(work.problem, strategy),
            losses=losses,
        )

    def settings(self, search: Search) -> list[SearchSettings]:
        """Those of ``quadnas search``, device by device; several limits on a device are a front."""
        truth = self.workshop.truth
        found = []
        for device, points in groupby(search.points, key=lambda point: point[0]):
            table = self.workshop.tables[device]
            *tighter, loosest = sorted(limit_within(table, share) for _, share in points)
            found.append(
                SearchSettings(
                    device=device, max_latency_ms=loosest, tighter_limits_ms=tuple(tighter),
                    strategy=search.strategy, seed=search.seed, space=truth.space, data=truth.data,
                    train_images=truth.train_images, train_size=truth.train_size, input_size=truth.input_size,
                    schedule=RIVALS[search.strategy].schedule(self.budget), recipe=truth.recipe,
                )
            )  # fmt: skip
        return found

    def _losses(self, work: Work, strategy: Strategy, session: SharedSession) -> tuple[float, ...]:
        """As random search and evolution compare networks, of the planned ones."""
        loss = held_out_loss(work.problem, work.data, work.train_size, strategy, session)
        return tuple(round(loss(choices), 5) for choices in self.workshop.architectures)


def _answer(
    work: Work,
    problem: Problem,
    share: float,
    strategy: Strategy,
    session: SharedSession,
    meter: Meter,
) -> Answer:
    """What the strategy chooses under one limit; what the product does with it afterwards costs nothing here."""
    began, compared = meter.clock(), meter.comparisons
    choices = loop.choose(work, problem, strategy, session)["choices"]
    images = min(HELD_OUT_IMAGES, len(work.data.held_out))
    forwards = images / problem.settings.recipe.batch_size + STATISTICS_BATCHES
    return Answer(
        device=problem.settings.device,
        share=share,
        limit_ms=problem.limit_ms,
        architecture=str(problem.space.architecture(choices)),
        bound_ms=problem.bound_ms(choices),
        seconds=round(meter.answered - began, 1),
        path_steps=round((meter.comparisons - compared) * forwards * FORWARD, 1),
    )


def _scores(problem: Problem, strategy: Strategy) -> tuple[tuple[float, ...], ...]:
    if not isinstance(strategy, ArchitectureLearner):
        return ()
    rows = zip(strategy.scores().tolist(), problem.space.slots, strict=True)
    return tuple(tuple(round(value, 6) for value in row[: len(slot.candidates)]) for row, slot in rows)


def search_table(arena: Arena, out: Path) -> SearchTable:
    """The table of an arena's searches, open for writing; raises ConfigError, DataError."""
    workshop = arena.workshop
    truth, architectures = workshop.truth, workshop.architectures
    header = truth.header(workshop.space, workshop.data, architectures)
    return SearchTable(
        out, {**header, "limits": list(truth.limits), "budget": arena.budget.model_dump(mode="json")}
    )


def search_all(
    truth: Truth,
    out: Path,
    strategies: Sequence[str] = tuple(RIVALS),
    seeds: int = 5,
    budget: Schedule = BUDGET,
    observe: Callable[[SearchRow], None] = lambda _: None,
) -> None:
    """Make the searches that the table ``out`` lacks and nobody else is making, until all are done."""
    torch.set_num_threads(1)
    arena = Arena(open_workshop(truth), budget)
    wanted = list(searches(truth, strategies, seeds))

    def missing(rows: Sequence[SearchRow]) -> Iterator[Job[SearchRow]]:
        done = {row.key for row in rows}
        return ((search.key, partial(arena.run, search)) for search in wanted if search.key not in done)

    work_off(search_table(arena, out), missing, observe=observe)


def search_together(truth: Truth, out: Path, strategies: Sequence[str], seeds: int, processes: int) -> None:
    """``search_all`` in so many processes; raises MachineError if one of them fails."""
    in_processes(_worker, (truth, out, strategies, seeds), processes)


def _worker(truth: Truth, out: Path, strategies: Sequence[str], seeds: int) -> None:
    search_all(
        truth,
        out,
        strategies,
        seeds,
        observe=lambda row: print(row.model_dump_json(exclude={"scores", "losses"}), flush=True),
    )
