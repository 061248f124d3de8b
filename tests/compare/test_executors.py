"""Where units run makes no difference to what comes of them; who may run is known before anything does."""

import json
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quadnas.compare.engine import Outcome, raise_failures, run_experiment
from quadnas.compare.executor import (
    EXECUTORS,
    Answer,
    Executor,
    Options,
    attempt,
    executor_for,
    require_undisturbed,
)
from quadnas.compare.executors import processes
from quadnas.compare.experiment import Bench, Unit, Work, read_experiment
from quadnas.compare.handover import Call, Left, answer_file, owner_of, take_over
from quadnas.compare.worker import measure_unit
from quadnas.errors import ConfigError, DataError, Interrupted, LimitError, MachineError
from quadnas.run.events import Event, Notice
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.run.lock import Lock
from quadnas.run.session import digests
from tests.cli.command import quadnas, write

from . import acting
from .toys import ARMS, ToyWork, run, toy

UNITS = [f"{arm}-{part}" for part in ("one", "two") for arm in ARMS]


class Shuffled(Executor):
    """Takes all units at once and answers in the order of ``finish``; those in ``failing`` fail."""

    finish: Sequence[int] = ()
    failing: Sequence[int] = ()

    def measure(self, units: Iterable[Unit], work: Work, bench: Bench) -> Generator[Answer, None, None]:
        known = list(units)
        for number in self.finish:
            unit = known[number]
            found = (
                DataError(f"no {unit}")
                if number in self.failing
                else attempt(lambda unit=unit: work.measure(unit, bench))  # type: ignore[misc]
            )
            yield Answer(unit, found, f"machine {number % 2}")


def outcome_of(folder: Path, executor: Executor) -> Outcome:
    experiment = toy()
    with RunFolder.create(folder, experiment.model_dump(mode="json")) as opened:
        work = ToyWork(experiment)
        return run_experiment(experiment, work, opened, lambda event: None, StopFlag(), executor)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(len(UNITS))), st.sets(st.integers(0, len(UNITS) - 1), max_size=3))
def test_the_order_of_finishing_is_not_seen(
    tmp_path_factory: pytest.TempPathFactory, finish: list[int], failing: set[int]
) -> None:
    place = tmp_path_factory.mktemp("runs")
    found = []
    for name, order in (("straight", sorted(finish)), ("shuffled", finish)):
        executor = Shuffled(None, Options())
        executor.finish, executor.failing = order, sorted(failing)
        outcome = outcome_of(place / name, executor)
        told = ""
        try:
            raise_failures(outcome, RunFolder.open(place / name))
        except DataError as error:
            told = str(error).replace(name, "")
        table = outcome.table
        found.append(
            (json.dumps([str(unit) for unit in outcome.records]), table.as_csv(), table.as_text(), told)
        )
    assert found[0] == found[1]
    assert ("units failed" in found[0][3]) == bool(failing)


def test_each_answer_is_committed_before_the_next_is_waited_for(tmp_path: Path) -> None:
    class Dying(Shuffled):
        def measure(self, units: Iterable[Unit], work: Work, bench: Bench) -> Generator[Answer, None, None]:
            yield from super().measure(units, work, bench)
            raise KeyboardInterrupt

    executor = Dying(None, Options())
    executor.finish = [4, 1]
    with pytest.raises(KeyboardInterrupt):
        outcome_of(tmp_path / "run", executor)
    _, work = run(tmp_path / "run")
    assert work.measured == [name for number, name in enumerate(UNITS) if number not in (4, 1)]


def test_what_a_worker_left_to_a_killed_process_is_taken_over_once_its_inputs_are_the_same(
    tmp_path: Path,
) -> None:
    ready = digests({"seed": 7})
    folder = RunFolder.create(tmp_path / "run", toy().model_dump(mode="json"))
    (folder.path / "arms").mkdir()
    Left(ready, "a node", record={"length": 55.0}).write(answer_file(folder.path, UNITS[0]))
    Left(digests({"seed": 8}), "a node", record={"length": 66.0}).write(answer_file(folder.path, UNITS[1]))
    Left(ready, "a node", error=DataError("gone")).write(answer_file(folder.path, UNITS[2]))
    Left(ready, "a node").write(answer_file(folder.path, UNITS[3]))
    Left(ready, "a node", record={"length": 77.0}).write(answer_file(folder.path, UNITS[4]))
    damaged = answer_file(folder.path, UNITS[4]).read_bytes().replace(b"77", b"78")
    answer_file(folder.path, UNITS[4]).write_bytes(damaged)
    outcome, work = run(tmp_path / "run")
    assert work.measured == UNITS[1:]
    assert outcome.records[Unit("alpha", "one")] == {"length": 55.0}
    assert sorted(outcome.machines) == outcome.machines
    assert "a node" in outcome.machines


@pytest.mark.parametrize("kind", [ConfigError, LimitError, DataError, MachineError])
def test_an_error_is_of_the_same_kind_on_both_sides(tmp_path: Path, kind: type[Exception]) -> None:
    found = attempt(lambda: (_ for _ in ()).throw(kind("the reason")))
    assert isinstance(found, kind)
    Left({}, "a node", error=found).write(tmp_path / "left")
    left = Left.read(tmp_path / "left")
    assert left is not None
    assert (type(left.error), str(left.error)) == (kind, "the reason")


def test_a_record_is_what_json_keeps_of_it_and_an_interruption_is_no_failure() -> None:
    assert attempt(lambda: {"pair": (1, 2)}) == {"pair": [1, 2]}
    assert "ValueError" in str(attempt(lambda: {"loss": float("nan")}))
    with pytest.raises(Interrupted):
        attempt(lambda: (_ for _ in ()).throw(Interrupted("stop", 15)))


def test_a_worker_that_is_still_there_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "arms").mkdir()
    lock = Lock(tmp_path / "arms" / "alpha.lock")
    lock.acquire()
    waited: list[str] = []

    def waiting(path: Path) -> None:
        waited.append(path.stem)
        assert owner_of(tmp_path)  # the worker sees that it is to stop
        if len(waited) == 3:
            lock.release()

    take_over(tmp_path, waiting)
    assert waited == ["alpha"] * 3
    first = owner_of(tmp_path)
    take_over(tmp_path, waiting)
    assert owner_of(tmp_path) != first
    assert len(waited) == 3


def test_a_run_that_waits_for_a_worker_can_be_stopped(tmp_path: Path) -> None:
    run(tmp_path / "run")
    lock = Lock(tmp_path / "run" / "arms" / "alpha-one.lock")
    lock.acquire()
    stop, seen = StopFlag(), []

    def observe(event: Event) -> None:
        assert isinstance(event, Notice)
        seen.append(event.text)
        stop.signal = 15

    with pytest.raises(Interrupted):
        run(tmp_path / "run", stop=stop, observe=observe)
    assert seen == ["waiting for the worker of alpha-one, left by a process that was killed"]
    lock.release()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--cluster", "slrum"], ["unknown cluster 'slrum'", "did you mean 'slurm'?"]),
        (["--cluster-option", "hours=4"], ["hours=4 belongs to a --cluster"]),
        (["--cluster", "slurm", "--cluster-option", "hours"], ["KEY=VALUE", "'hours'"]),
        (["--cluster", "slurm", "--cluster-option", "hour=4"], ["'hour'", "did you mean 'hours'?"]),
        (["--cluster", "slurm", "--cluster-option", "cpus=none"], ["cpus", "valid integer", "'none'"]),
        (
            ["--cluster", "slurm", "--cluster-option", "cpus=2", "--cluster-option", "cpus=3"],
            ["each key once"],
        ),
        (["--cluster", "processes", "--cluster-option", "cpus=2"], ["unknown key 'cpus'"]),
    ],
)
def test_a_wrong_option_is_refused(tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    file = write(tmp_path / "toy.yaml", "kind: nothing\n")
    quadnas("compare", file, *arguments).refused(2, *parts)
    assert list(tmp_path.iterdir()) == [file]


def test_without_slurm_or_ray_the_user_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(MachineError, match=r"no SLURM.*login node"):
        executor_for(None, "slurm", ())
    for engine, package in (("slurm", "submitit"), ("ray", "ray")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MachineError, match=rf'pip install "quadnas\[{engine}\]"'):
            executor_for(None, engine, ())


@pytest.mark.parametrize("kind", ["throughput", "training-memory"])
def test_what_units_side_by_side_would_falsify_runs_alone(tmp_path: Path, kind: str) -> None:
    text = (
        f"format: quadnas-experiment/1\nkind: {kind}\ntitle: Alone\narms: {{a: {{model: quadranet-25-xs}}}}\n"
    )
    file = write(tmp_path / "alone.yaml", text)
    for arguments in (["--workers", 2], ["--cluster", "processes"]):
        answer = quadnas("compare", file, "--out", tmp_path / "run", *arguments)
        answer.refused(2, kind, "in this process, without --workers and --cluster")
    assert not (tmp_path / "run").exists()
    require_undisturbed(read_experiment(file), executor_for(1, None, ()))


def test_every_arm_that_cannot_run_is_told_before_anything_does(tmp_path: Path) -> None:
    nowhere = "{search: {data: 'folder:nowhere'}}"
    arms = f"fine: {{}}, fast: {{search: {{max_latency_ms: 0.001}}}}, blind: {nowhere}, blind2: {nowhere}"
    file = write(
        tmp_path / "search.yaml",
        "format: quadnas-experiment/1\nkind: search\ntitle: Search\nseeds: [0, 1]\n"
        f"search: {{device: cortexA76, max_latency_ms: 300}}\narms: {{{arms}}}\n",
    )
    answer = quadnas("compare", file, "--out", tmp_path / "run")
    answer.refused(LimitError.exit_code, "arms.fast: ", "arms.blind, arms.blind2: ", "nowhere", "0.001 ms")
    assert "arms.fine" not in answer.err
    assert not (tmp_path / "run").exists()


def test_an_executor_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"here", "processes", "ray", "slurm"} <= set(EXECUTORS)
    monkeypatch.setitem(EXECUTORS._items, "shuffled", Shuffled)
    monkeypatch.setattr(Shuffled, "finish", (1, 0))
    file = write(
        tmp_path / "xor.yaml",
        "format: quadnas-experiment/1\nkind: xor\ntitle: Toy\nsigmas: [0.3]\ntrain_points: 40\ntest_points: 100\n"
        "steps: 5\nstarts: 1\narms: {bayes: {neuron: bayes}, linear: {neuron: linear}}\n",
    )
    answer = quadnas("compare", file, "--out", tmp_path / "run", "--cluster", "shuffled", "--json")
    assert [row["arm"] for row in answer.json["rows"]] == ["bayes", "linear"]
    assert json.loads((tmp_path / "run" / "results.json").read_text())["machine"] == "machine 0; machine 1"


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, ("record", "")),
        ({"inputs": {"word of good": "another digest"}}, ("error", "another word of good")),
        ({"owner": "who was killed"}, ("stopped", "")),
        ({"parent": os.getpid()}, ("stopped", "")),  # itself is nobody's parent
    ],
)
def test_a_worker_measures_for_its_own_main_process_and_from_the_same_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], left: tuple[str, str]
) -> None:
    acting.install(tmp_path, monkeypatch)
    experiment = read_experiment(acting.experiment(tmp_path, good="measure", other="raise"))
    folder = RunFolder.create(tmp_path / "run", experiment.model_dump(mode="json"))
    take_over(folder.path, lambda lock: None)
    inputs = digests(experiment.prepare().inputs)
    call = Call(
        str(folder.path), str(tmp_path), "good", owner_of(folder.path), inputs, torch.get_num_threads()
    )
    measure_unit(str(replace(call, **changes)))
    found = Left.read(answer_file(folder.path, "good"))
    assert found is not None
    what = "record" if found.record else "error" if found.error else "stopped"
    assert (what, bool(acting.diary(tmp_path))) == (left[0], left[0] == "record")
    assert left[1] in str(found.error)
    if found.record:
        assert found.record == {"value": 4.0, "shared": 1}


def test_cores_and_gpus_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    gone: set[str] = set()

    class Idle(processes.ProcessTask):
        """As if a process ran."""

        def __init__(self, call: Call, gpu: str) -> None:
            self.call, self.gpu = call, gpu

        def ended(self) -> bool:
            return self.call.unit in gone

    monkeypatch.setattr(processes, "ProcessTask", Idle)
    executor = executor_for(3, None, ())
    assert isinstance(executor, processes.Processes)
    assert executor.notice() == "3 processes side by side, 2 threads each, 2 GPUs among them"
    call = Call(str(tmp_path), str(tmp_path), "", "me", {}, executor.threads())

    def gpu_of(unit: str) -> str:
        task = executor.start(replace(call, unit=unit))
        assert isinstance(task, Idle)
        assert task.call.parent == os.getpid()
        return task.gpu

    assert [gpu_of(unit) for unit in "abc"] == ["5", "7", "5"]
    gone |= {"a", "c"}
    assert [gpu_of(unit) for unit in "de"] == ["5", "5"]
    many = processes.Processes(16, Options())
    assert many.notice().startswith("16 processes side by side, 1 thread each")
