"""The main flow of a search: train the supernet, derive under the limit, retrain."""

import json
import time
from collections.abc import Callable
from typing import Any

from quadnas.config import write_yaml
from quadnas.network import Network
from quadnas.run.checkpoint import Checkpoint
from quadnas.run.events import Derived, Evaluated, Notice, Observer
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.search.derivation import model_spec, search_result
from quadnas.search.front import RESULT, files_of, weights_origin
from quadnas.search.problem import Problem
from quadnas.search.result import SearchResult, read_result, result_data
from quadnas.search.selection import held_out_loss, inherited, selection
from quadnas.search.strategy import OneShot, Strategy, new_strategy
from quadnas.search.supernet_stage import SupernetStage
from quadnas.search.unlimited import Witness
from quadnas.search.work import Work, notices
from quadnas.training import stage
from quadnas.training.distributed import SharedSession
from quadnas.training.evaluation import evaluate
from quadnas.training.stage import TrainingStage, scored
from quadnas.training.weights import load_weights, weights_bytes

Finding = dict[str, Any]
"""What was chosen under one limit: ``choices``, and the ``accuracy`` with its first weights."""


def search(
    work: Work,
    folder: RunFolder,
    observe: Observer,
    stop: StopFlag,
    clock: Callable[[], float] = time.monotonic,
) -> SearchResult:
    """Run, or go on with, the search whose settings lie in the locked ``folder``; returns what it found.

    Every stage commits what the next one needs, so a run that was killed anywhere goes on from its last commit
    and ends with the identical result. Raises Interrupted when asked to stop.
    """
    finished = folder.path / RESULT
    if finished.exists():
        return read_result(finished)
    every_seconds = work.problem.settings.checkpoint_seconds
    session = SharedSession(work.ranks, folder, observe, stop, clock, every_seconds, work.inputs)
    checkpoint = session.resume()
    points = work.problem.front
    done, findings = 0, []
    if checkpoint and checkpoint.state["stage"] == stage.NAME:
        done, findings = checkpoint.state["done"], checkpoint.state["findings"]
    else:
        strategy = train_supernet(work, session, checkpoint)
        findings = [choose(work, point, strategy, session) for point in points]
        checkpoint = None
    for number in range(done, len(points)):
        result = retrain(work, points[number], session, findings, number, checkpoint)
        checkpoint = None
    return result


def train_supernet(work: Work, session: SharedSession, checkpoint: Checkpoint | None) -> Strategy:
    """The strategy, which has learned what it can."""
    problem = work.problem
    if checkpoint is None:
        for text in notices(problem):
            session.emit(Notice(text))
    strategy = new_strategy(problem)
    if isinstance(strategy, OneShot):
        SupernetStage(
            problem, strategy, work.data, work.train_size, work.device, session, work.ranks
        ).run(checkpoint)  # fmt: skip
    return strategy


def choose(work: Work, problem: Problem, strategy: Strategy, session: SharedSession) -> Finding:
    """Choose the architecture under the limits of ``problem``, and write its spec and its first weights."""
    loss = held_out_loss(problem, work.data, work.train_size, strategy, session, work.ranks)
    witness = Witness(problem, selection(problem, loss))
    choices = strategy.choose(witness.selection)
    unlimited = witness.unlimited()
    session.emit(
        Derived(
            architecture=str(problem.space.architecture(choices)),
            bound_ms=problem.bound_ms(choices),
            unlimited_architecture=str(problem.space.architecture(unlimited)) if unlimited else None,
            unlimited_ms=problem.bound_ms(unlimited) if unlimited else None,
        )
    )
    spec = model_spec(problem, work.data, choices, work.train_size)
    network = inherited(problem, work.data.training, work.train_size, work.device, strategy, choices, session)
    files = files_of(problem.settings.max_latency_ms, work.problem.settings)
    session.write(files.model, write_yaml(spec))
    session.write(files.weights, weights_bytes(network, {"train_size": str(work.train_size)}))
    score = evaluate(
        network, work.data.test, size=work.train_size, after_batch=session.batch_evaluated, ranks=work.ranks
    )
    origin = weights_origin(problem.settings)
    session.emit(Evaluated(origin, "test", score.accuracy, score.loss, score.images))
    return {"choices": list(choices), "accuracy": score.accuracy}


def retrain(
    work: Work,
    problem: Problem,
    session: SharedSession,
    findings: list[Finding],
    number: int,
    checkpoint: Checkpoint | None,
) -> SearchResult:
    """Retrain the network that was chosen under one limit from its first weights, and write its result.

    ``findings`` are those of all limits, of which ``number`` are done.
    """
    settings, choices = problem.settings, findings[number]["choices"]
    spec = model_spec(problem, work.data, choices, work.train_size)
    network = Network(spec.layers).to(work.device)
    first = accuracy = findings[number]["accuracy"]
    files = files_of(settings.max_latency_ms, work.problem.settings)
    written = {"model": files.model, f"{weights_origin(settings)} weights": files.weights}
    if settings.schedule.retrain_epochs:
        if checkpoint is None:
            load_weights(network, session.folder.path / files.weights)
        trained = TrainingStage(
            network, work.data.training, settings.recipe, session,
            epochs=settings.schedule.retrain_epochs, size=work.train_size, seed=settings.seed,
            findings={"findings": findings, "done": number}, ranks=work.ranks,
        ).run(checkpoint)  # fmt: skip
        session.write(files.retrained, weights_bytes(trained.kept, {"train_size": str(work.train_size)}))
        score = scored(
            trained, work.data.test, session, label="retrained", size=work.train_size, ranks=work.ranks
        )
        accuracy, written["retrained weights"] = score.accuracy, files.retrained
    result = search_result(
        problem, work.data, choices, work.train_size,
        (first, accuracy),
        sum(parameter.numel() for parameter in network.parameters()),
        written,
    )  # fmt: skip
    if work.ranks.leads:
        session.folder.journal.sync()
    session.write(files.result, json.dumps(result_data(result), indent=2))
    return result
