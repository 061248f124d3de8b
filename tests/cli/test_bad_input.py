"""A mistake ends in one message, the exit code of its kind, and nothing half-written."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from quadnas.latency.card import read_card, write_card
from quadnas.resources import locate
from quadnas.run.folder import RunFolder
from quadnas.search.problem import pose
from quadnas.search.settings import SearchSettings
from tests.cli.command import TINY_SEARCH, quadnas, write
from tests.cli.conftest import Found

LIMITED = ("--device", "cortexA76", "--max-latency", "3ms")
PLACES = ("--space", "tiny.yaml", "--out", "out")
SEARCH = ("search", *LIMITED, *PLACES)


def nothing_left(place: Path, *inputs: str) -> None:
    """Only what the test itself wrote stands in the working directory."""
    assert sorted(path.name for path in place.iterdir()) == sorted(["tiny.yaml", *inputs])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--device", "myriadvpu"), ("2 --device and 1 limits", "each --device takes a --max-latency")),
        (("--device", "cortexA77", "--max-latency", "3ms"), (
            "no device 'cortexA77'", "did you mean 'cortexA76'", "$QUADNAS_HOME"
        )),
        (("--device", "cortexA76", "--max-latency", "4ms"), ("'cortexA76' stands twice",)),
        (("--space", "quadranets"), ("no search space 'quadranets'", "did you mean 'quadranet", "./name.yaml")),
        (("--space", "../nowhere.yaml"), ("no search space '../nowhere.yaml'", "allowed: ")),
        (("--space", "."), ("cannot read .", "directory")),
        (("--strategy", "proxylessnas"), ("unknown strategy 'proxylessnas'", "did you mean 'proxyless'")),
        (("--data", "digit"), ("unknown data set 'digit'", "did you mean 'digits'", "folder")),
        (("--data", "folder:"), ("ends in a colon", "./images")),
        (("--data", "folder:gone"), ("no folder gone", "CLASS")),
        (("--batch", "7"), ("no prices at batch 7", "allowed: 1")),
        (("--input-size", "0"), ("input_size", "greater than or equal to 1", "0")),
        (("--input-size", "16"), ("leaves nothing of a 1x1 map", "--input-size")),
        (("--train-size", "16"), ("leaves nothing of a 1x1 map", "--train-size")),
        (("--seed", "-1"), ("seed", "greater than or equal to 0", "-1")),
        (("--retrain-epochs", "-1"), ("schedule.retrain_epochs", "-1")),
        (("--confidence", "1.5"), ("confidence", "less than 1", "1.5")),
        (("--confidence", "0.9999"), ("between 0.5 and 0.995", "0.9999", "--confidence 0.9")),
    ],
)  # fmt: skip
def test_a_wrong_argument(place: Path, arguments: tuple[str, ...], parts: tuple[str, ...]) -> None:
    quadnas(*SEARCH, *arguments).refused(2, *parts)
    nothing_left(place)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("devise: cortexA76\n", ("unknown key 'devise'", "did you mean 'device'", "'device' is missing")),
        ("schedule: {warmup_epoch: 1}\n", ("'schedule.warmup_epoch'", "did you mean 'warmup_epochs'")),
        ("recipe: {rates: 1.0}\n", ("'recipe.rates'", "did you mean 'rate'")),
        ("max_latency_ms: 300ms\n", ("max_latency_ms: Input should be a valid number, not '300ms'",)),
        ("device: 76\n", ("device: Input should be a valid string, not 76",)),
        ("latency_loss: linear\n", ("latency_loss", "'multiplier'", "'add_linear'", "not 'linear'")),
        ("device: a\ndevice: b\n", ("line 2", "'device' stands twice")),
        ("a: &x 1\nb: *x\n", ("aliases are not allowed",)),
        ("a: !!python/name:os.system\n", ("tags are not allowed",)),
        ("a: " + "[" * 50 + "]" * 50, ("deeper than 20 levels",)),
        ("#" * 1_000_001, ("larger than 1000000 bytes",)),
        ("- a\n", ("expected keys with values",)),
        ("a: [\n", ("not a valid YAML file", "line 2")),
    ],
)
def test_a_wrong_settings_file(place: Path, text: str, parts: tuple[str, ...]) -> None:
    write(place / "my.yaml", text)
    quadnas("search", "--config", "my.yaml", "--out", "out").refused(2, "my.yaml", *parts)
    nothing_left(place, "my.yaml")


def test_a_latency_loss_that_the_strategy_cannot_use(place: Path) -> None:
    write(place / "my.yaml", f"{TINY_SEARCH}space: tiny.yaml\nlatency_loss: add_linear\n")
    for strategy in ("swap", "random", "proxyless_reinforce"):
        answer = quadnas("search", "--config", "my.yaml", "--strategy", strategy, "--out", "out")
        answer.refused(2, "latency_loss add_linear", f"strategy {strategy}", "proxyless, proxyless_full")
    nothing_left(place, "my.yaml")


def test_a_settings_file_that_cannot_be_read(place: Path) -> None:
    (place / "latin.yaml").write_bytes("device: caf\xe9".encode("latin-1"))
    (place / "folder.yaml").mkdir()
    for name, reason in (("latin", "UTF-8"), ("folder", "directory"), ("missing", "No such file")):
        quadnas("search", "--config", f"{name}.yaml", "--out", "out").refused(2, f"{name}.yaml", reason)
    nothing_left(place, "latin.yaml", "folder.yaml")


def test_a_number_in_exponential_form_is_one(place: Path) -> None:
    """Read as text, 1e-3 would be refused as no number; as a limit it is below the feasible range."""
    write(
        place / "my.yaml",
        f"{TINY_SEARCH}space: tiny.yaml\n".replace("max_latency_ms: 3", "max_latency_ms: 1e-3"),
    )
    quadnas("search", "--config", "my.yaml", "--out", "out").refused(3, "within 0.001 ms")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("kernels: [3]", ("unknown key 'kernels'", "did you mean 'kernel'")),
        ("kernel: [4]", ("kernel", "odd", "4")),
        ("kernel: [three]", ("kernel", "valid integer", "'three'")),
        ("kernel: [3, 3]", ("two candidates would be labelled 'quadra-k3-e2'",)),
    ],
)
def test_a_wrong_candidate_in_a_space(place: Path, text: str, parts: tuple[str, ...]) -> None:
    space = (place / "tiny.yaml").read_text()
    write(place / "tiny.yaml", space.replace("kernel: [3, 5]", text))
    quadnas(*SEARCH).refused(2, *parts)
    write(place / "tiny.yaml", space.replace("quadra,", "qadra,"))
    quadnas(*SEARCH).refused(2, "unknown block family 'qadra'", "did you mean 'quadra'")
    write(place / "tiny.yaml", space.replace("stages:", "stage:"))
    quadnas(*SEARCH).refused(2, "tiny.yaml", "unknown key 'stage'", "did you mean 'stages'")
    nothing_left(place)


def test_a_limit_below_the_minimum_names_what_can_be_met(place: Path) -> None:
    start = time.monotonic()
    answer = quadnas("search", *LIMITED[:-1], "100us", *PLACES)
    assert time.monotonic() - start < 50
    answer.refused(3, "'tiny'", "within 0.1 ms", "cortexA76", "224x224", "feasible range", "--max-latency")
    nothing_left(place)
    low_ms, high_ms = map(float, answer.err.split("feasible range is ")[1].split(" ms")[0].split(" to "))
    settings = SearchSettings(device="cortexA76", max_latency_ms=low_ms, space="tiny.yaml")
    bounds = pose(settings, classes=10).bounds.range
    assert list(bounds) == pytest.approx([low_ms, high_ms], rel=1e-3)
    assert bounds[0] <= low_ms


def test_the_spaces_within_reach_are_named_whatever_else_lies_there(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaces = place / "home" / "search_spaces"
    spaces.mkdir(parents=True)
    shutil.copy("tiny.yaml", spaces / "small.yaml")
    write(spaces / "broken.yaml", "format: something-else\n")
    monkeypatch.setenv("QUADNAS_HOME", str(place / "home"))
    quadnas(*SEARCH, "--space", "quadranet").refused(3, "within reach: ", "small (0.", "another --space")


@pytest.mark.parametrize("name", ["card.yaml", "coefficients.safetensors"])
def test_a_flipped_bit_in_a_predictor(place: Path, found: Found, name: str) -> None:
    device = Path(shutil.copytree(locate("latency_predictors", "cortexA76"), place / "device"))
    file = device / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    quadnas(*SEARCH, "--device", "./device", "--max-latency", "3ms").refused(
        4, f"device/{name}", "damaged", "estore it"
    )
    quadnas("latency", found.run / "model.yaml", "--device", "./device").refused(4, f"device/{name}")
    nothing_left(place, "device")


def device_without(place: Path, *operators: str) -> str:
    """A copy of the Cortex-A76 that has no stand-in for some operators."""
    folder = Path(shutil.copytree(locate("latency_predictors", "cortexA76"), place / "partial"))
    card = read_card(folder / "card.yaml")
    left = {op: rule for op, rule in card.surrogates.items() if op not in operators}
    (folder / "card.yaml").write_bytes(write_card(card.model_copy(update={"surrogates": left})))
    return str(folder)


def test_a_network_with_an_uncovered_kernel_has_no_latency(place: Path, found: Found) -> None:
    device = device_without(place, "gelu")
    answer = quadnas("latency", found.run / "model.yaml", "--device", device, "--json")
    assert answer.code == 4
    assert "no price" in answer.err
    assert answer.json["latency_ms"] is None
    uncovered = [k for k in answer.json["kernels"] if k["coverage"] == "uncovered"]
    assert {kernel["op"] for kernel in uncovered} == {"gelu"}
    assert all(kernel["ms"] is None and "gelu" in kernel["reason"] for kernel in uncovered)
    coverage = answer.json["coverage"]
    assert coverage["uncovered"] == pytest.approx(len(uncovered) / len(answer.json["kernels"]))
    assert sum(coverage.values()) == pytest.approx(1)


def test_a_search_refuses_what_has_no_price(place: Path) -> None:
    settings = SearchSettings(device=device_without(place, "gelu"), max_latency_ms=3, space="tiny.yaml")
    problem = pose(settings, classes=10)
    labels = problem.space.slots[0].labels
    assert [label for label, priced in zip(labels, problem.bounds.priced[0], strict=True) if priced] == [
        "identity"
    ]
    shutil.rmtree("partial")
    damaged = ("--device", device_without(place, "layernorm"), "--max-latency", "3ms")
    quadnas("search", *PLACES, *damaged).refused(4, "no price for", "layernorm")
    nothing_left(place, "partial")


def images(folder: Path) -> list[Path]:
    """Two classes with ten random pictures each."""
    generator = np.random.default_rng(0)
    paths = []
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(10):
            paths.append(folder / label / f"{number}.png")
            Image.fromarray(generator.integers(0, 256, (40, 40, 3), np.uint8)).save(paths[-1])
    return paths


def test_a_corrupt_image_stops_the_run_which_goes_on_once_it_is_repaired(place: Path) -> None:
    whole = images(place / "pets")
    kept = {path: path.read_bytes() for path in whole}
    for path in whole:
        path.write_bytes(kept[path][:100])
    config = TINY_SEARCH.replace("retrain_epochs: 1", "retrain_epochs: 0").replace("train_images: 200\n", "")
    write(place / "my.yaml", f"{config}space: tiny.yaml\ndata: folder:pets\nrecipe: {{batch_size: 8}}\n")
    answer = quadnas("search", "--config", "my.yaml", "--out", "out", "--json")
    assert (answer.code, answer.out) == (4, "")
    assert "cannot decode the image pets/" in answer.err
    assert "repair or remove it" in answer.err
    assert "Traceback" not in answer.err
    assert {path.name for path in (place / "out").iterdir()} <= {"run.json", "journal.jsonl", "lock"}
    for path, data in kept.items():
        path.write_bytes(data)
    resumed = quadnas("search", "--resume", "out", "--json")
    assert resumed.json["run"] == "out"
    assert yaml.safe_load((place / "out" / "model.yaml").read_text())["classes"] == ["cat", "dog"]


def changed_spec(found: Found, path: Path, change: str) -> None:
    spec = yaml.safe_load((found.run / "model.yaml").read_text())
    if change == "channels":
        spec["layers"][1].update(channels_in=16, channels_out=16)
    elif change == "classes":
        spec["classes"] = ["yes", "no"]
    elif change == "stem":
        spec["layers"][0]["channels_in"] = 1
    elif change == "block":
        spec["layers"][1]["block"] = "quadre"
    elif change == "argument":
        spec["layers"][1] = {
            "block": "quadra",
            "channels_in": 8,
            "channels_out": 8,
            "arguments": {"kernel": 3},
        }
    elif change == "key":
        spec["layer"] = spec.pop("layers")
    path.write_text(yaml.safe_dump(spec))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("channels", ("layers: 8 channels reach layer 1", "takes 16")),
        ("classes", ("layers: the last layer gives 10 values for 2 classes",)),
        ("stem", ("layers: 3 channels reach layer 0", "takes 1")),
        ("block", ("unknown block family 'quadre'", "did you mean 'quadra'")),
        ("argument", ("block 'quadra'", "the key 'expansion' is missing")),
        ("key", ("unknown key 'layer'", "did you mean 'layers'")),
    ],
)
def test_a_damaged_model_spec(place: Path, found: Found, change: str, parts: tuple[str, ...]) -> None:
    changed_spec(found, place / "m.yaml", change)
    quadnas("train", "m.yaml", "--out", "out").refused(2, *parts)
    quadnas("evaluate", "m.yaml", found.run / "model.safetensors").refused(2, *parts)
    quadnas("latency", "m.yaml", "--device", "cortexA76").refused(2, *parts)
    nothing_left(place, "m.yaml")


def test_weights_that_do_not_fit_or_are_damaged(place: Path, found: Found) -> None:
    spec = found.run / "model.yaml"
    weights = (found.run / "model.safetensors").read_bytes()
    (place / "cut.safetensors").write_bytes(weights[:-100])
    (place / "no.safetensors").write_bytes(b"\xff" * 1000)
    for name in ("cut", "no"):
        quadnas("evaluate", spec, f"{name}.safetensors").refused(
            4, f"{name}.safetensors", "not an intact", "restore"
        )
    quadnas("evaluate", spec, "gone.safetensors").refused(2, "no weights file gone.safetensors", "export")
    other = yaml.safe_load(spec.read_text())
    other["layers"].insert(1, {"block": "quadra", "channels_in": 8, "channels_out": 8,
                               "arguments": {"kernel": 7, "expansion": 4}})  # fmt: skip
    write(place / "other.yaml", yaml.safe_dump(other))
    quadnas("evaluate", "other.yaml", found.run / "model.safetensors").refused(
        2, "another network", "this model's own"
    )
    quadnas("evaluate", spec, found.run / "model.safetensors", "--train-size", "0").refused(2, "0x0 map")
    quadnas("evaluate", spec, found.run / "model.safetensors", "--train-size", "8").refused(2, "--train-size")


def test_training_needs_the_classes_and_a_size_that_fit(place: Path, found: Found) -> None:
    images(place / "pets")
    spec = found.run / "model.yaml"
    quadnas("train", spec, "--data", "folder:pets", "--out", "out").refused(
        2, "10 classes", "has 2 (cat, dog"
    )
    quadnas("train", spec, "--train-size", "8", "--out", "out").refused(
        2, "nothing of a 1x1 map", "--train-size"
    )
    quadnas("train", spec, "--epochs", "0", "--out", "out").refused(2, "epochs", "greater than or equal to 1")
    quadnas("train").refused(2, "needs a model", "--resume RUN")
    nothing_left(place, "pets")


def test_what_is_no_run_folder(place: Path, found: Found) -> None:
    (place / "empty").mkdir()
    for path in ("empty", "gone", "tiny.yaml"):
        for command in (["search", "--resume", path], ["train", "--resume", path]):
            quadnas(*command).refused(2, f"{path} is not a run folder", "runs/NAME")
    for path in ("empty", "gone"):
        quadnas("export", path, "-o", "x.yaml").refused(2, f"{path} is not a run folder", "runs/NAME")
    quadnas("export", "tiny.yaml", "-o", "x.yaml").refused(2, "tiny.yaml", "should be 'quadnas-model/1'")
    quadnas("train", "--resume", found.run).refused(
        2, "not written by quadnas train", "quadnas search --resume"
    )
    nothing_left(place, "empty")


def test_a_corrupt_run_folder(place: Path, found: Found) -> None:
    run = Path(shutil.copytree(found.run, place / "run"))
    data = (run / "run.json").read_bytes()
    (run / "run.json").write_bytes(data.replace(b"cortexA76", b"cortexA77"))
    for command in (["search", "--resume", "run"], ["export", "run", "-o", "x.yaml"]):
        quadnas(*command).refused(4, "run/run.json is corrupt", "new run")
    (run / "run.json").write_bytes(data)
    (run / "result.json").write_text("{")
    quadnas("search", "--resume", "run").refused(4, "run/result.json")
    nothing_left(place, "run")


def test_resuming_takes_no_settings(found: Found) -> None:
    for extra in (
        ["--seed", "0"],
        ["--config", found.config],
        ["--out", "elsewhere"],
        ["--retrain-epochs", "0"],
    ):
        quadnas("search", "--resume", found.run, *extra).refused(
            2, "--resume takes every setting from the run"
        )


def test_an_existing_run_is_never_overwritten(place: Path, found: Found) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in found.run.iterdir()}
    quadnas("search", "--config", found.config, "--out", found.run).refused(
        2, "already holds a run", "--resume", "--out"
    )
    assert {path.name: path.stat().st_mtime_ns for path in found.run.iterdir()} == before
    (place / "full").mkdir()
    write(place / "full" / "thesis.txt", "all of it")
    quadnas(*SEARCH[:-1], "full").refused(2, "new or empty folder", "thesis.txt", "--out")
    quadnas(*SEARCH[:-1], "tiny.yaml").refused(2, "tiny.yaml is a file")


def test_a_folder_that_cannot_be_made(place: Path) -> None:
    quadnas(*SEARCH[:-1], "tiny.yaml/out").refused(5, "cannot write tiny.yaml/out", "Not a directory")


def test_a_second_process_in_the_same_run_is_refused_at_once(found: Found) -> None:
    with RunFolder.open(found.run):
        start = time.monotonic()
        answer = quadnas("search", "--resume", found.run)
        assert time.monotonic() - start < 5
    answer.refused(5, "one writer at a time", f"process {os.getpid()}", "--out")


@pytest.mark.parametrize("out", [".", "", "x", "x.safetensors", "tiny.yaml/x.yaml", "gone/x.yaml", "full"])
def test_an_export_goes_to_a_new_yaml_file_or_nowhere(place: Path, found: Found, out: str) -> None:
    (place / "full").mkdir()
    quadnas("export", found.run, "-o", out).refused(2, "ending in .yaml in an existing folder", out)
    nothing_left(place, "full")


def test_an_export_of_what_is_unfinished_or_damaged_writes_nothing(place: Path, found: Found) -> None:
    quadnas("export", found.run, "--to", "onyx").refused(2, "unknown export target 'onyx'", "allowed: ")
    RunFolder.create(place / "young", json.loads((found.run / "run.json").read_text())["settings"])
    quadnas("export", "young").refused(
        2, "young holds no finished network yet", "quadnas search --resume young"
    )
    for name, settings, hint in (
        ("begun", {"model": {}}, "quadnas train --resume begun"),
        ("paper", {"kind": "xor"}, "export an arm of it, paper/arms/ARM"),
    ):
        RunFolder.create(place / name, settings)
        quadnas("export", name).refused(2, hint)
    run = Path(shutil.copytree(found.run, place / "run"))
    whole = (run / "retrained.safetensors").read_bytes()
    (run / "retrained.safetensors").write_bytes(whole[:-1])
    quadnas("export", "run").refused(4, "run/retrained.safetensors", "not an intact")
    (run / "retrained.safetensors").unlink()
    (run / "model.safetensors").unlink()
    quadnas("export", "run").refused(2, "holds no finished network yet")
    nothing_left(place, "young", "begun", "paper", "run")


def test_measured_networks_that_cannot_be_used(place: Path) -> None:
    line: dict[str, Any] = {
        "id": "a",
        "family": "f",
        "latency_ms": {"cortexA76": 1.0},
        "kernels": [["conv", 7, 8, 8, 1, 1]],
    }
    evaluate = ("predictors", "evaluate", "--device", "cortexA76", "--data")
    quadnas(*evaluate, "gone.jsonl").refused(2, "no file gone.jsonl")
    write(place / "m.jsonl", json.dumps(line) + "\n{")
    quadnas(*evaluate, "m.jsonl").refused(4, "m.jsonl, line 2")
    write(place / "m.jsonl", json.dumps(line))
    quadnas(*evaluate, "m.jsonl", "--column", "cortexA67").refused(
        2, "'cortexA67'", "did you mean 'cortexA76'"
    )
