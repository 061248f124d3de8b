"""Every kind of experiment, small, through the command: measured, resumed, refused."""

import csv
import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from quadnas.compare.engine import run_experiment
from quadnas.compare.experiment import experiment_from, read_experiment
from quadnas.compare.kinds.throughput import threads_set_to
from quadnas.config import validated, write_yaml
from quadnas.errors import Interrupted
from quadnas.network import Network
from quadnas.run.events import Event, WeightStep
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.space.model_family import find_model
from quadnas.training.recipe import Recipe
from quadnas.training.standalone import TrainSettings, train_network
from tests.cli.command import TINY_SPACE, quadnas, write

TINY = """\
network:
  stem: {block: patchify, stride: 4}
  downsample: {block: downsample, stride: 2}
  head: {block: classifier}
  blocks: [{block: quadra, kernel: 3, expansion: 2}]
  channels: [8, 16]
  depths: [1, 1]
"""
TRAINING = f"""\
format: quadnas-experiment/1
kind: training
title: two kernels
data: digits
train_size: 16
train_images: 100
epochs: 1
seeds: [0, 1]
recipe: {{batch_size: 20}}
devices: [cortexA76]
input_size: 64
{TINY}arms:
  k3: {{}}
  k5: {{network: {{blocks: [{{block: quadra, kernel: 5, expansion: 2}}]}}, paper: {{macs: 1e+6}}}}
"""
THROUGHPUT = f"""\
format: quadnas-experiment/1
kind: throughput
title: two widths
batch: 2
rounds: 3
input_size: 64
{TINY}arms:
  narrow: {{against: {{wide: wide}}, paper: {{images_per_s: 30}}}}
  wide: {{network: {{channels: [96, 192]}}, paper: {{images_per_s: 20}}}}
"""
GRID = f"""\
format: quadnas-experiment/1
kind: latency-grid
title: widths and depths
devices: [cortexA76, myriadvpu]
input_size: 64
{TINY}arms:
  small: {{}}
  deep: {{network: {{depths: [2, 3]}}}}
  wide: {{network: {{channels: [16, 32]}}}}
"""
SEARCH = """\
format: quadnas-experiment/1
kind: search
title: two limits
devices: [myriadvpu]
seeds: [0]
search:
  device: cortexA76
  space: tiny.yaml
  max_latency_ms: 3
  train_size: 32
  train_images: 100
  schedule: {warmup_epochs: 1, search_epochs: 1, retrain_epochs: 1, architecture_every: 1}
arms:
  low: {search: {max_latency_ms: 2.5}}
  high: {search: {max_latency_ms: 6}}
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(run: Path) -> dict[str, dict[str, str]]:
    """The lines of table.csv by arm."""
    return {row["arm"]: row for row in csv.DictReader((run / "table.csv").read_text().splitlines())}


def test_training_is_that_of_quadnas_train(place: Path) -> None:
    """The same settings in a run folder of their own end in the same accuracy."""
    write(place / "my.yaml", TRAINING)
    answer = quadnas("compare", "my.yaml", "--out", "run", "--json").json
    assert [row["arm"] for row in answer["rows"]] == ["k3", "k5"]
    found = rows(place / "run")
    units = json.loads((place / "run" / "results.json").read_text())["units"]
    assert list(units) == ["k3-seed0", "k5-seed0", "k3-seed1", "k5-seed1"]
    mean = (units["k3-seed0"]["accuracy"] + units["k3-seed1"]["accuracy"]) / 2
    assert float(found["k3"]["accuracy"]) == pytest.approx(mean)
    assert float(found["k3"]["step_ms"]) > 0
    assert float(found["k5"]["cortexA76_ms"]) > float(found["k3"]["cortexA76_ms"])

    arm = RunFolder.open(place / "run" / "arms" / "k5-seed1")
    again = validated(arm.settings, TrainSettings, "run.json")
    assert again == TrainSettings(
        model=again.model,
        data="digits",
        train_size=16,
        train_images=100,
        epochs=1,
        seed=1,
        recipe=Recipe(batch_size=20),
    )
    assert {layer.arguments.get("kernel") for layer in again.model.layers if layer.block == "quadra"} == {5}
    with RunFolder.create(place / "alone", again.model_dump(mode="json")) as folder:
        score = train_network(folder, lambda event: None, StopFlag())
    assert score.accuracy == units["k5-seed1"]["accuracy"]
    network = Network(again.model.layers)
    assert int(found["k5"]["parameters"]) == sum(parameter.numel() for parameter in network.parameters())


def test_an_arm_that_was_stopped_in_the_middle_goes_on_and_ends_as_if_it_had_not(place: Path) -> None:
    experiment = read_experiment(write(place / "my.yaml", TRAINING.replace("seeds: [0, 1]", "seeds: [3]")))
    settings = experiment.model_dump(mode="json")
    steps: list[int] = []

    def accuracies(folder: RunFolder, stop_after: int | None) -> dict[str, float]:
        stop = StopFlag()

        def observe(event: Event) -> None:
            if isinstance(event, WeightStep):
                steps.append(event.step)
                stop.signal = signal.SIGTERM if len(steps) == stop_after else None

        with folder:
            found = run_experiment(experiment, experiment.prepare(), folder, observe, stop)
        return {str(unit): record["accuracy"] for unit, record in found.records.items()}

    whole = accuracies(RunFolder.create(place / "whole", settings), None)
    assert steps == [1, 2, 3, 4, 5] * 2
    steps.clear()
    with pytest.raises(Interrupted, match="--resume"):
        accuracies(RunFolder.create(place / "stopped", settings), 7)
    steps.clear()
    assert accuracies(RunFolder.open(place / "stopped"), None) == whole
    assert steps == [3, 4, 5]


def test_a_missing_data_set_or_device_is_refused_before_anything_runs(place: Path) -> None:
    write(place / "data.yaml", TRAINING.replace("digits", "folder:gone"))
    quadnas("compare", "data.yaml", "--out", "run").refused(2, "no folder gone")
    write(place / "device.yaml", TRAINING.replace("cortexA76", "cortexA77"))
    quadnas("compare", "device.yaml", "--out", "run").refused(2, "did you mean 'cortexA76'")
    write(place / "small.yaml", TRAINING.replace("train_size: 16", "train_size: 4"))
    quadnas("compare", "small.yaml", "--out", "run").refused(2, "leaves nothing of a 1x1 map")
    assert not (place / "run").exists()


def test_throughput_is_that_of_interleaved_rounds(place: Path) -> None:
    write(place / "my.yaml", THROUGHPUT)
    assert quadnas("compare", "my.yaml", "--out", "run").code == 0
    units = json.loads((place / "run" / "results.json").read_text())["units"]
    assert list(units)[:3] == ["narrow-round1", "wide-round1", "narrow-round2"]
    seconds = sorted(units[f"narrow-round{number}"]["seconds"] for number in (1, 2, 3))
    found = rows(place / "run")
    assert float(found["narrow"]["images_per_s"]) == pytest.approx(2 / seconds[1])
    ratio = float(found["narrow"]["images_per_s"]) / float(found["wide"]["images_per_s"])
    assert float(found["narrow"]["ratio:wide"]) == pytest.approx(ratio)
    assert float(found["narrow"]["paper_ratio:wide"]) == 1.5
    assert ratio > 1


def test_threads_are_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="inside"), threads_set_to(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ValueError("inside")
    assert torch.get_num_threads() == before


def test_a_grid_prices_what_quadnas_latency_prices(place: Path) -> None:
    write(place / "my.yaml", GRID)
    answer = quadnas("compare", "my.yaml", "--out", "run", "--json").json
    small, deep, wide = answer["rows"]
    assert (small["channels"], small["layers"]) == (8, 2)
    assert (deep["channels"], deep["layers"]) == (8, 5)
    assert (wide["channels"], wide["layers"]) == (16, 2)
    for device in ("cortexA76_ms", "myriadvpu_ms"):
        assert small[device] < deep[device]
        assert small[device] < wide[device]


def test_a_named_model_is_priced_as_the_command_prices_it(place: Path) -> None:
    text = GRID[: GRID.index("network:")].replace("input_size: 64", "input_size: 224")
    write(place / "my.yaml", text + "arms:\n  t: {model: quadranet12_xxs}\n")
    (row,) = quadnas("compare", "my.yaml", "--json").json["rows"]
    alone = quadnas("latency", "quadranet12_xxs", "--device", "cortexA76", "--json").json
    assert row["cortexA76_ms"] == pytest.approx(alone["latency_ms"])
    listed = quadnas("models", "quadranet12_xxs", "--json").json
    assert (row["parameters"], row["macs"]) == (listed[0]["params"], listed[0]["macs"])
    assert find_model("quadranet12_xxs").input.size == 224


def test_searches_hold_their_limits(place: Path) -> None:
    write(place / "tiny.yaml", TINY_SPACE)
    write(place / "my.yaml", SEARCH)
    answer = quadnas("compare", "my.yaml", "--out", "run", "--json").json
    low, high = answer["rows"]
    assert low["latency_ms"] <= 2.5 == low["limit_ms"]
    assert high["latency_ms"] <= 6 == high["limit_ms"]
    alone = quadnas("latency", "run/arms/low-seed0/model.yaml", "--device", "myriadvpu", "--json").json
    assert low["myriadvpu_ms"] == pytest.approx(alone["latency_ms"])
    assert (place / "run" / "arms" / "high-seed0" / "report.html").exists()


def test_a_limit_out_of_reach_is_refused_before_any_arm_runs(place: Path) -> None:
    write(place / "tiny.yaml", TINY_SPACE)
    write(place / "my.yaml", SEARCH.replace("2.5", "0.001"))
    quadnas("compare", "my.yaml", "--out", "run").refused(3, "feasible range")
    assert not (place / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ("quadnas compare needs an experiment", "--resume RUN")),
        (("gone.yaml",), ("cannot read gone.yaml",)),
        (("my.yaml", "--resume", "nowhere"), ("nowhere is not a run folder",)),
    ],
)
def test_wrong_arguments(place: Path, arguments: tuple[str, ...], parts: tuple[str, ...]) -> None:
    write(place / "my.yaml", GRID)
    quadnas("compare", *arguments).refused(2, *parts)
    assert [path.name for path in place.iterdir()] == ["my.yaml"]


def test_a_run_goes_on_with_its_own_settings_alone(place: Path) -> None:
    file = write(place / "my.yaml", GRID)
    first = quadnas("compare", "my.yaml", "--out", "run")
    table = (place / "run" / "table.csv").read_bytes()
    assert quadnas("compare", "--resume", "run").out == first.out
    assert quadnas("compare", "my.yaml", "--resume", "run").code == 0
    assert (place / "run" / "table.csv").read_bytes() == table
    file.write_text(GRID.replace("depths: [2, 3]", "depths: [2, 4]"))
    quadnas("compare", "my.yaml", "--resume", "run").refused(2, "other settings than my.yaml", "(arms)")
    quadnas("compare", "my.yaml", "--out", "run").refused(2, "run")
    quadnas("train", "--resume", "run").refused(2, "quadnas compare --resume goes on with it")


def test_both_a_model_and_a_network_are_one_too_many(place: Path) -> None:
    write(
        place / "my.yaml", GRID.replace("small: {}", "small: {model: swin_tiny, network: {depths: [1, 1]}}")
    )
    quadnas("compare", "my.yaml").refused(2, "arms.small", "either model or network")


def test_a_mistake_in_a_network_names_the_arm_and_the_key(place: Path) -> None:
    wrong: Any = GRID.replace("depths: [2, 3]", "depth: [2, 3]")
    write(place / "my.yaml", wrong)
    quadnas("compare", "my.yaml").refused(2, "arms.deep.network", "'depth'", "did you mean")


def test_a_seed_twice_is_no_repetition(place: Path) -> None:
    write(place / "my.yaml", TRAINING.replace("seeds: [0, 1]", "seeds: [1, 1]"))
    quadnas("compare", "my.yaml").refused(2, "seeds", "1 stands twice")


def test_a_file_for_other_classes_is_trained_for_those_of_the_data_wherever_it_stands(place: Path) -> None:
    spec = find_model("quadranet12_xxs")
    head = spec.layers[-1].model_copy(update={"channels_out": 3})
    layers, classes = (*spec.layers[:-1], head), ("x", "y", "z")
    changes = {"name": "mine", "classes": classes, "layers": layers, "provenance": {}}
    write(place / "mine.yaml", write_yaml(spec.model_copy(update=changes)))
    experiment = experiment_from(
        {
            "format": "quadnas-experiment/1", "kind": "training", "title": "t", "data": "digits", "epochs": 1,
            "train_size": 32, "arms": {"file": {"model": "mine.yaml"}, "named": {"model": "quadranet12_xxs"}},
        },
        "my.yaml",
    )  # fmt: skip
    inputs: Mapping[str, Any] = experiment.prepare().inputs
    assert inputs["model of file"][-1].channels_out == inputs["model of named"][-1].channels_out == 10
