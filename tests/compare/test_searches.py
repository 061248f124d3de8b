"""Searches side by side with given networks: grids, training alike, binding limits, paired differences."""

import csv
import json
import re
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quadnas.compare.engine import run_experiment
from quadnas.compare.evidence import ALL_FIT, BOUND, FREE, UNKNOWN, bound_text, limit_bound
from quadnas.compare.experiment import Unit, experiment_from
from quadnas.compare.kinds.search import Search
from quadnas.compare.networks import latencies_ms, size_of
from quadnas.compare.pairs import paired_table
from quadnas.config import parse_yaml, validated
from quadnas.errors import ConfigError, Interrupted
from quadnas.run.events import Event, WeightStep
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.search.problem import Problem
from quadnas.space.model_spec import load_model_spec
from quadnas.training.standalone import TrainSettings, train_network
from tests.cli.command import TINY_SPACE, quadnas, write
from tests.toy import toy_problem

from .test_latex import rows_of

GRID = """\
format: quadnas-experiment/1
kind: search
title: two spaces, two limits & a network_of_another
devices: [cortexA76, myriadvpu]
seeds: [0, 1]
search:
  data: digits
  train_size: 32
  train_images: 100
  schedule: {warmup_epochs: 0, search_epochs: 1, architecture_every: 1}
training: {epochs: 1}
grid:
  - small: {space: small.yaml}
    tiny: {space: tiny.yaml}
  - A76: {device: cortexA76, max_latency_ms: 2.4}
    VPU: {device: myriadvpu, max_latency_ms: 30}
arms:
  tiny-A76: {paper: {accuracy: 0.9}}
  given: {model: given.yaml, against: {small: small-A76}}
"""
A76 = {"device": "cortexA76", "max_latency_ms": 2.4}
UNITS = [f"{arm}-seed{seed}" for seed in (0, 1)
         for arm in ("small-A76", "tiny-A76", "small-VPU", "tiny-VPU", "given")]  # fmt: skip


def search(text: str = GRID, **changes: Any) -> Search:
    found = experiment_from({**parse_yaml(text, "my.yaml"), **changes}, "my.yaml")
    assert isinstance(found, Search)
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with two spaces and a network."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "tiny.yaml", TINY_SPACE)
    write(tmp_path / "small.yaml", TINY_SPACE.replace("[3, 5]", "[3]"))
    layers = """\
  - {block: patchify, channels_in: 3, channels_out: 8, stride: 4}
  - {block: quadra, channels_in: 8, channels_out: 8, arguments: {kernel: 3, expansion: 2}}
  - {block: classifier, channels_in: 8, channels_out: 3}
"""
    inputs = "{size: 224, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}"
    write(
        tmp_path / "given.yaml",
        f"format: quadnas-model/1\nname: given\ninput: {inputs}\nclasses: [x, y, z]\nlayers:\n{layers}",
    )
    return tmp_path


def test_a_grid_is_every_crossing_with_the_first_axis_fastest() -> None:
    found = search()
    assert [str(unit) for unit in found.units()] == UNITS
    settings = found.settings("tiny-VPU", 1)
    assert (settings.space, settings.device, settings.max_latency_ms) == ("tiny.yaml", "myriadvpu", 30)
    assert (settings.seed, settings.schedule.retrain_epochs, settings.schedule.warmup_epochs) == (1, 0, 0)
    assert found.arms["tiny-A76"].paper == {"accuracy": 0.9}
    assert found.pairs() == (
        ("tiny-A76", "small-A76"), ("tiny-VPU", "small-VPU"), ("given", "small-A76"),
    )  # fmt: skip
    assert experiment_from(found.model_dump(mode="json"), "run") == found


def test_of_three_choices_each_is_held_against_the_earlier_ones() -> None:
    grid: Any = ({"a": {}, "b": {}, "c": {}},)
    assert search(grid=grid, arms={}).pairs() == (("b", "a"), ("c", "a"), ("c", "b"))
    listed = {name: {"search": {"space": name}} for name in "xyz"}
    assert search(grid=(), arms=listed).pairs() == (("y", "x"), ("z", "x"), ("z", "y"))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"grid": {"a": {}}}, "grid"),
        ({"grid": ({"a": 3},)}, "grid"),
        ({"grid": ({"../a": {}},)}, "../a"),
        ({"arms": {"given": {"model": "m.yaml", "search": {"space": "tiny"}}}}, "arms.given.model"),
        ({"training": None}, "training: {epochs: ...}"),
        ({"training": {"epochs": 1, "seed": 3}}, "training: unknown key 'seed'"),
        ({"training": {"epoch": 1}}, "did you mean 'epochs'"),
        ({"training": {"epochs": 0}}, "training: epochs"),
    ],
)
def test_what_is_wrong_is_refused_with_its_key(place: Path, change: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        search(**change).prepare()
    assert part in str(caught.value)


def test_training_takes_from_the_search_what_it_does_not_say_itself(place: Path) -> None:
    experiment = search(training={"epochs": 3, "train_images": None, "recipe": {"batch_size": 8}})
    spec = experiment.prepare()._given["given"]
    settings = experiment.train_settings("given", 5, spec)
    assert (settings.epochs, settings.train_size, settings.train_images, settings.seed) == (3, 32, None, 5)
    assert (settings.recipe.batch_size, settings.data) == (8, "digits")
    assert len(spec.classes) == spec.layers[-1].channels_out == 10


def told_of(problem: Problem, choices: Sequence[int] | None) -> str:
    """Whether the limit bound, by a journal in which this would have been chosen without limits."""
    text = None if choices is None else str(problem.space.architecture(choices))
    tighter, derived = ({"event": "Derived", "unlimited_architecture": one} for one in (None, text))
    return limit_bound([tighter, derived, {"event": "Evaluated"}], problem)


def test_a_limit_binds_what_would_have_chosen_more() -> None:
    problem = toy_problem(limit_ms=1.0)
    cheapest, dearest = ([row.index(pick(row)) for row in problem.bounds.rows] for pick in (min, max))
    assert problem.bound_ms(cheapest) < 1.0 < problem.bound_ms(dearest)
    answers = [told_of(problem, choices) for choices in (cheapest, dearest, None)]
    assert answers == [FREE, BOUND, UNKNOWN]
    assert told_of(toy_problem(limit_ms=1e9), dearest) == ALL_FIT
    assert bound_text([BOUND, FREE, BOUND]) == "yes: 2; no: 1"
    assert (bound_text([FREE, FREE]), bound_text([None, None])) == (FREE, None)


def test_of_several_limits_those_that_bound_are_named() -> None:
    problem = toy_problem(limit_ms=1.0)
    dearest = [row.index(max(row)) for row in problem.bounds.rows]
    roomy, tight = (replace(problem.limits[0], name="macs", value=value) for value in (1e9, 0.9))
    name = problem.limits[0].name
    assert told_of(replace(problem, limits=(problem.limits[0], roomy)), dearest) == name
    assert told_of(replace(problem, limits=(problem.limits[0], tight)), dearest) == f"{name}, macs"


def test_every_search_says_whether_its_limit_bound(place: Path) -> None:
    """By the journal: of swap the candidates with the highest gains, of the largest the dearest everywhere."""
    limit = {
        **{"space": "tiny.yaml", "device": "cortexA76", "max_latency_ms": 1.0},
        **{"schedule": {"retrain_epochs": 0}},
    }
    arms = {name: {"search": {**limit, "strategy": name}} for name in ("swap", "largest")}
    experiment = search(grid=(), arms=arms, training=None, seeds=(0,))
    with RunFolder.create(place / "run", experiment.model_dump(mode="json")) as folder:
        outcome = run_experiment(experiment, experiment.prepare(), folder, lambda _: None, StopFlag())
    bound = {unit.arm: record["binding"] for unit, record in outcome.records.items()}
    events = {name: RunFolder.open(place / f"run/arms/{name}-seed0").journal.read() for name in arms}
    derived = {name: next(e for e in found if e["event"] == "Derived") for name, found in events.items()}
    *_, last = (event for event in events["swap"] if event["event"] == "ArchitectureStep")
    labels = [("quadra-k3-e2", "quadra-k5-e2", "identity")[row.index(max(row))] for row in last["gains"]]
    assert derived["swap"]["unlimited_architecture"].replace("|", ",").split(",") == labels
    assert derived["largest"]["unlimited_architecture"] == "|".join(["quadra-k5-e2"] * 4)
    assert bound["largest"] == BOUND
    assert bound["swap"] == (BOUND if derived["swap"]["unlimited_ms"] > 1.0 else FREE)


def test_pairs_are_those_of_shared_seeds() -> None:
    samples = {"a": {0: 0.5, 1: 0.6, 2: 0.7}, "b": {1: 0.65, 2: 0.71, 3: 0.1}, "c": {9: 0.5}, "d": {0: 0.4}}
    table = paired_table(samples, [("b", "a"), ("c", "a"), ("d", "a")])
    assert table is not None
    both, alone = table.rows
    assert (both.arm, both.values["seeds"], both.values["wins"]) == ("b minus a", 2, "2/0/0")
    assert both.values["difference"] == pytest.approx(0.03)
    assert (alone.values["verdict"], alone.values["low"]) == ("one seed: no statement", None)
    assert paired_table(samples, [("c", "a")]) is None


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ([0.01], "one seed: no statement"),
        ([0.01, -0.02, 0.03], "not told apart"),
        ([0.010, 0.011, 0.012], "better, if normal"),
        ([-0.010, -0.011, -0.012, -0.01, -0.009, -0.013], "worse"),
    ],
)
def test_verdicts_say_what_they_rest_on(gains: list[float], verdict: str) -> None:
    samples = {"a": dict.fromkeys(range(9), 0.5), "b": {i: 0.5 + gain for i, gain in enumerate(gains)}}
    table = paired_table(samples, [("b", "a")])
    assert table is not None
    assert table.rows[0].values["verdict"] == verdict
    assert any("One seed tells nothing" in note for note in table.notes) == (len(gains) == 1)
    assert any("cannot fall below" in note for note in table.notes) == (1 < len(gains) < 6)


def test_every_device_of_an_arm_has_its_latency_and_its_limit(place: Path) -> None:
    """Two seeds under limits on two devices and on the size, against the networks priced one by one."""
    more: Any = {
        "schedule": {"retrain_epochs": 0},
        "also": [{"device": "myriadvpu", "max_latency_ms": 5.5}],
        "max_parameters": 20_000,
    }
    settings = {"space": "tiny.yaml", "strategy": "largest", **A76, **more}
    experiment = search(grid=(), arms={"a": {"search": settings}}, training=None)
    with RunFolder.create(place / "run", experiment.model_dump(mode="json")) as folder:
        outcome = run_experiment(experiment, experiment.prepare(), folder, lambda _: None, StopFlag())
    units = {"a-seed0", "a-seed1"}
    specs = [load_model_spec(place / "run/arms" / unit / "model.yaml") for unit in units]
    vpu_ms = max(latencies_ms(spec.layers, 224, ["myriadvpu"])["myriadvpu_ms"] or 0 for spec in specs)
    size = max(size_of(spec.layers, 224)["parameters"] for spec in specs)
    row = outcome.table.rows[0].values
    assert row["beside"] == f"{vpu_ms:.4g} of 5.5 ms on myriadvpu, {size:,} of 20,000 parameters"
    records = experiment.by_arm(outcome.records)
    dashed = [
        [np.ravel(line.get_xdata())[0] for line in axes.lines if line.get_linestyle() == "--"]
        for axes in experiment.draw(outcome.table, records).axes
    ]
    assert dashed == [[2.4], [5.5]]


def test_many_pairs_raise_p() -> None:
    """Each alone would be told apart at p = 0.03; among three by Holm it is not."""
    base = dict.fromkeys(range(3), 0.5)
    arms = {name: {0: 0.510, 1: 0.513, 2: 0.508} for name in "bcd"}
    one, three = (paired_table({"a": base, **arms}, [(n, "a") for n in names]) for names in ("b", "bcd"))
    assert one is not None
    assert three is not None
    assert one.rows[0].values["p_t"] == three.rows[0].values["p_t"]
    assert (one.rows[0].values["verdict"], three.rows[0].values["verdict"]) == (
        "better, if normal",
        "not told apart",
    )


def test_searches_and_a_given_network_end_in_one_table(place: Path) -> None:
    write(place / "my.yaml", GRID)
    answer = quadnas("compare", "my.yaml", "--out", "run", "--json").json
    rows = {row["arm"]: row for row in answer["rows"]}
    units = json.loads((place / "run" / "results.json").read_text())["units"]
    assert set(units) == set(UNITS)
    for arm in ("tiny-A76", "small-A76"):
        assert rows[arm]["cortexA76_ms"] <= rows[arm]["latency_ms"] <= rows[arm]["limit_ms"] == 2.4
    assert (rows["tiny-VPU"]["binding"], rows["tiny-VPU"]["limit_ms"]) == ("all fit", 30)
    assert rows["given"]["myriadvpu_ms"] > 0
    assert min(units["tiny-A76-seed0"][key] for key in ("search_s", "search_cpu_s")) > 0
    assert (rows["given"]["binding"], rows["given"]["limit_ms"]) == (None, None)
    accuracies = [units[f"tiny-VPU-seed{seed}"]["accuracy"] for seed in (0, 1)]
    assert rows["tiny-VPU"]["accuracy"] == pytest.approx(sum(accuracies) / 2)
    half = 12.7062 * abs(accuracies[0] - accuracies[1]) / 2  # t(0.975, 1)
    assert rows["tiny-VPU"]["half"] == pytest.approx(half, rel=1e-4, abs=1e-12)

    for inside in ("given-seed1", "tiny-A76-seed1/training"):  # trained as quadnas train does it
        folder = RunFolder.open(place / "run" / "arms" / inside)
        settings = validated(folder.settings, TrainSettings, "run.json")
        assert (settings.epochs, settings.seed, settings.train_images) == (1, 1, 100)
        with RunFolder.create(place / inside.replace("/", "-"), folder.settings) as alone:
            score = train_network(alone, lambda event: None, StopFlag())
        assert score.accuracy == units[inside.split("/")[0]]["accuracy"]

    pairs = {
        row["arm"]: row for row in csv.DictReader((place / "run" / "pairs.csv").read_text().splitlines())
    }
    assert list(pairs) == ["tiny-A76 minus small-A76", "tiny-VPU minus small-VPU", "given minus small-A76"]
    told = {pair["arm"]: pair for pair in answer["pairs"]}
    assert list(told) == list(pairs)
    for name, pair in pairs.items():
        assert float(pair["p_t"] or "nan") == pytest.approx(told[name]["p_t"] or float("nan"), nan_ok=True)
        assert (pair["wins"], pair["verdict"]) == (told[name]["wins"], told[name]["verdict"])
    gains = [units[f"given-seed{s}"]["accuracy"] - units[f"small-A76-seed{s}"]["accuracy"] for s in (0, 1)]
    assert float(pairs["given minus small-A76"]["difference"]) == pytest.approx(sum(gains) / 2)
    first, second = (place / "run" / "table.tex").read_text().split("\n\n")
    assert [line[0] for line in rows_of(first)] == ["arm", *rows]
    assert [line[0] for line in rows_of(second.rstrip())] == ["pair", *pairs]
    page = (place / "run" / "report.html").read_text()
    links = re.findall(r'<a href="([^"]+)"', page)
    assert links == [f"arms/{unit}/report.html" for unit in UNITS if not unit.startswith("given")]
    assert all((place / "run" / link).exists() for link in links)
    assert "Paired differences" in page
    assert "Paired differences" in (place / "run" / "table.md").read_text()
    assert 'src="http' not in page
    again = quadnas("compare", "--resume", "run", "--json").json
    assert again == answer


def test_a_unit_that_was_stopped_in_its_training_goes_on_and_searches_no_second_time(place: Path) -> None:
    experiment = search(seeds=(0,), grid=(), arms={"a": {"search": {"space": "tiny.yaml", **A76}}})
    settings, seen = experiment.model_dump(mode="json"), list[str]()

    def record(folder: RunFolder, stop_after: int | None) -> dict[str, Any]:
        stop = StopFlag()

        def observe(event: Event) -> None:
            if isinstance(event, WeightStep):
                seen.append(event.phase)
                stop.signal = signal.SIGTERM if seen.count("training") == stop_after else None

        with folder:
            (found,) = run_experiment(
                experiment, experiment.prepare(), folder, observe, stop
            ).records.values()
        return found

    whole = record(RunFolder.create(place / "whole", settings), None)
    steps = len(seen)
    seen.clear()
    with pytest.raises(Interrupted, match="--resume"):
        record(RunFolder.create(place / "stopped", settings), 1)
    resumed = record(RunFolder.open(place / "stopped"), None)
    assert len(seen) == steps  # none twice
    times = dict.fromkeys(("search_s", "search_cpu_s"))
    assert {**whole, **times} == resumed


def test_an_arm_that_cannot_start_is_told_before_any_runs(place: Path) -> None:
    write(place / "my.yaml", GRID.replace("max_latency_ms: 2.4", "max_latency_ms: 0.001"))
    quadnas("compare", "my.yaml", "--out", "run").refused(3, "feasible range", "arms.small-A76")
    write(place / "my.yaml", GRID.replace("given.yaml", "gone.yaml"))
    quadnas("compare", "my.yaml", "--out", "run").refused(2, "gone.yaml")
    write(
        place / "my.yaml", GRID.replace("training: {epochs: 1}", "training: {epochs: 1, data: 'folder:gone'}")
    )
    quadnas("compare", "my.yaml", "--out", "run").refused(2, "no folder gone")
    assert not (place / "run").exists()


def test_a_table_is_there_for_some_of_the_seeds(place: Path) -> None:
    """What failed or was not reached leaves the others' means over fewer seeds, and says so."""
    record = {
        **{"seed": 0, "accuracy": 0.5, "architecture": "x", "limits_ms": {"cortexA76": 2.4}, "device": "A76"},
        **{"limit_ms": 2.4, "beside": None, "latency_ms": 2.0, "binding": "no"},
        **{"search_s": None, "search_cpu_s": 3.0, "parameters": 9, "macs": 9},
        **{"cortexA76_ms": 2.0, "myriadvpu_ms": None},
    }
    table = search().table({Unit("tiny-A76", "seed0"): record}, {Unit("tiny-A76", "seed1"): "lost"})
    row = next(row for row in table.rows if row.arm == "tiny-A76")
    assert (row.values["seeds"], row.values["half"], row.values["search_s"]) == (1, None, None)
    assert row.values["search_cpu_s"] == 3
    assert "lost" in row.failure
    assert not table.more
    paper = next(row for row in table.rows if row.arm == "tiny-A76").paper
    assert paper == {"accuracy": 0.9}
    panels = search().draw(table, {"tiny-A76": [record]}).axes
    dashed = [[line for line in axes.lines if line.get_linestyle() == "--"] for axes in panels]
    assert [[np.ravel(line.get_xdata())[0] for line in lines] for lines in dashed] == [[2.4], []]
