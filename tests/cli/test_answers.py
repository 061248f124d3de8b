"""What the commands answer: the exact keys, and figures that hold up in a fresh process."""

import hashlib
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from quadnas.latency.devices import load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import estimate
from quadnas.network import kernels_of, load_space
from quadnas.resources import locate
from quadnas.run.folder import RunFolder
from tests.cli.command import TINY_SEARCH, python, quadnas, write
from tests.cli.conftest import Found

SEARCH_KEYS = ["run", "architecture", "latency_ms", "limit_ms", "accuracy"]
KERNEL_KEYS = {
    "op", "h", "w", "inputs", "cout", "kernel", "stride", "batch", "ms", "coverage", "reason",
}  # fmt: skip


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in RunFolder.open(run).journal.read() if event["event"] == kind]


def test_a_search_prints_one_line_with_exactly_these_keys(found: Found) -> None:
    answer = found.answer.json
    assert list(answer) == SEARCH_KEYS
    assert answer["run"] == str(found.run)
    stages = answer["architecture"].split("|")
    assert len(stages) == 4
    assert set(stages) <= {"quadra-k3-e2", "quadra-k5-e2", "identity"}
    assert 0 < answer["latency_ms"] <= answer["limit_ms"] == 3
    assert 0 <= answer["accuracy"] <= 1
    right = answer["accuracy"] * 359  # test images
    assert right == pytest.approx(round(right), abs=1e-3)
    assert "Traceback" not in found.answer.err
    assert found.answer.err  # bars and messages


def test_the_latency_holds_in_a_fresh_process(place: Path, found: Found) -> None:
    promised = found.answer.json["latency_ms"]
    fresh = python(
        "-m", "quadnas.cli", "latency", found.run / "model.yaml", "--device", "cortexA76", "--json"
    )
    assert fresh.json["latency_ms"] == promised
    answer = quadnas("export", found.run, "-o", "x.yaml")
    names = ["x.yaml", "x.safetensors", "x-retrained.yaml", "x-retrained.safetensors"]
    assert answer.out.splitlines() == names
    assert sorted(path.name for path in place.iterdir()) == sorted([*names, "tiny.yaml"])
    again = quadnas("latency", "x.yaml", "--device", "cortexA76", "--json").json
    assert again["latency_ms"] == promised


def test_the_latency_is_the_sum_of_its_kernels(found: Found) -> None:
    answer = quadnas("latency", found.run / "model.yaml", "--device", "cortexA76", "--json").json
    assert list(answer) == ["latency_ms", "interval_ms", "scale", "kernels", "coverage"]
    assert answer["interval_ms"]["low"] < answer["latency_ms"] < answer["interval_ms"]["high"]
    assert answer["interval_ms"]["calibrated"] is (answer["coverage"]["surrogate"] == 0)
    assert all(set(kernel) == KERNEL_KEYS for kernel in answer["kernels"])
    total = sum(kernel["ms"] for kernel in answer["kernels"])
    assert answer["latency_ms"] == pytest.approx(total, rel=1e-12)
    assert list(answer["coverage"]) == ["exact", "surrogate", "uncovered"]
    for kind, share in answer["coverage"].items():
        ms = sum(kernel["ms"] for kernel in answer["kernels"] if kernel["coverage"] == kind)
        assert share == pytest.approx(ms / total, abs=1e-12)


def test_batch_and_input_size_reach_the_device(found: Found) -> None:
    small = quadnas(
        "latency", found.run / "model.yaml", "--device", "a100", "--input-size", 64, "--batch", 4, "--json"
    )
    kernels = small.json["kernels"]
    assert {kernel["batch"] for kernel in kernels} == {4}
    assert kernels[0]["h"] == kernels[0]["w"] == 64


def test_margin_and_confidence_tighten_what_is_held(place: Path, found: Found) -> None:
    run = place / "sure"
    answer = quadnas(
        "search", "--config", found.config, "--out", run, "--json",
        "--confidence", "0.9", "--latency-margin", "5%", "--retrain-epochs", "0",
    ).json  # fmt: skip
    result = json.loads((run / "result.json").read_text())
    card = yaml.safe_load(
        (locate("latency_predictors", "cortexA76") / "card.yaml").read_text().rpartition("sha256")[0]
    )
    excess = dict(map(tuple, card["error_quantiles"]))[0.9]
    assert excess > 1
    assert answer["latency_ms"] * excess <= result["bound_ms"] <= 3 * 0.95
    assert result["bound_ms"] > answer["latency_ms"]
    assert {step["limit_ms"] for step in events(run, "ArchitectureStep")} == {3 * (1 - 0.05)}
    again = quadnas("latency", run / "model.yaml", "--device", "cortexA76", "--json").json
    assert again["latency_ms"] == answer["latency_ms"]
    assert not (run / "retrained.safetensors").exists()
    assert answer["accuracy"] == result["initial_accuracy"]


def test_a_limit_above_the_maximum_is_noted_and_the_term_left_out(place: Path, found: Found) -> None:
    run = place / "free"
    answer = quadnas(
        "search", "--config", found.config, "--out", run, "--json",
        "--max-latency", "0.5s", "--retrain-epochs", "0",
    )  # fmt: skip
    assert answer.json["limit_ms"] == 500
    (notice,) = events(run, "Notice")
    for text in (notice["text"], answer.err):
        assert "every network of tiny is within 500 ms" in text
    steps = events(run, "ArchitectureStep")
    assert steps
    assert {step["multiplier"] for step in steps} == {0}


def test_the_same_seed_gives_the_same_bytes(place: Path, found: Found) -> None:
    files = ("model.safetensors", "retrained.safetensors", "model.yaml", "result.json", "report.html")
    again = quadnas("search", "--config", found.config, "--out", "again", "--json").json
    assert {**again, "run": ""} == {**found.answer.json, "run": ""}
    for name in files[:4]:
        assert (place / "again" / name).read_bytes() == (found.run / name).read_bytes(), name
    quadnas("search", "--config", found.config, "--out", "other", "--seed", "1", "--json")
    assert (place / "other" / files[0]).read_bytes() != (found.run / files[0]).read_bytes()


def test_a_finished_run_resumes_to_the_same_answer(found: Found) -> None:
    before = (found.run / "journal.jsonl").read_bytes()
    assert quadnas("search", "--resume", found.run, "--json").json == found.answer.json
    assert (found.run / "journal.jsonl").read_bytes() == before


def test_a_run_of_any_name_can_be_resumed(place: Path) -> None:
    """The note on the data holds their path, and JSON spells what is beyond the basic plane in two halves."""
    from tests.cli.test_bad_input import images

    images(place / "pets \N{DOG FACE}")
    config = TINY_SEARCH.replace("train_images: 200\n", "").replace("retrain_epochs: 1", "retrain_epochs: 0")
    data = "data: 'folder:pets \N{DOG FACE}'\nrecipe: {batch_size: 8}\n"
    write(place / "my.yaml", f"{config}space: tiny.yaml\n{data}")
    first = quadnas("search", "--config", "my.yaml", "--out", "\N{CAT FACE} 1e3", "--json").json
    assert first["run"] == "\N{CAT FACE} 1e3"
    assert quadnas("search", "--resume", first["run"]).code == 0
    assert "pets \N{DOG FACE}" in (place / first["run"] / "report.html").read_text()


def test_the_default_run_folder_is_named_after_the_question(place: Path, found: Found) -> None:
    (place / "runs" / "tiny-cortexA76-3ms").mkdir(parents=True)
    answer = quadnas("search", "--config", found.config, "--retrain-epochs", "0", "--json")
    assert answer.json["run"] == "runs/tiny-cortexA76-3ms-2"


def test_evaluating_the_run_s_weights_gives_the_run_s_accuracy(found: Found) -> None:
    result = json.loads((found.run / "result.json").read_text())
    spec = found.run / "model.yaml"
    for weights, key in (("model", "initial_accuracy"), ("retrained", "accuracy")):
        answer = quadnas("evaluate", spec, found.run / f"{weights}.safetensors", "--json").json
        assert list(answer) == ["accuracy", "loss", "images", "size"]
        assert answer["accuracy"] == result[key]
        assert (answer["images"], answer["size"]) == (359, 32)
    assert result["accuracy"] == found.answer.json["accuracy"]


def test_a_spec_trains_alone_and_repeatably(place: Path, found: Found) -> None:
    train = ("train", found.run / "model.yaml", "--epochs", "1", "--train-size", "32", "--json")
    first, second = (quadnas(*train, "--out", name) for name in ("one", "two"))
    assert list(first.json) == ["run", "accuracy", "loss", "images"]
    assert {**first.json, "run": "two"} == second.json
    one, two = ((place / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    score = quadnas("evaluate", "one/model.yaml", "one/model.safetensors", "--json").json
    assert score["accuracy"] == first.json["accuracy"]
    assert quadnas("train", "--resume", "one", "--json").json == first.json
    assert quadnas("export", "one", "-o", "x.yaml").out.splitlines() == ["x.yaml", "x.safetensors"]


def test_measured_networks_are_compared_as_defined(place: Path) -> None:
    """Measurements made from predictions, so that every error is known: +0, +4, -7, +10.8 and +50 %.

    10.8 % of the measurement is less than 10 % of the prediction: the measurement is what counts.
    """
    model = load_device("cortexA76")
    generator = random.Random(0)
    lines, measured = [], []
    for number, error in enumerate([0.0, 0.04, -0.07, 0.108, 0.5]):
        rows = [["conv-bn-relu", 14, generator.randint(20, 200), 64, 3, 1] for _ in range(4)]
        kernels = [Kernel(op, h, h, (cin,), cout, k, s) for op, h, cin, cout, k, s in rows]  # type: ignore[arg-type]
        predicted_ms = estimate(model, kernels).latency_ms
        assert predicted_ms
        measured.append((predicted_ms, predicted_ms / (1 + error)))
        lines.append({"id": f"{number}", "family": "ab"[number % 2], "kernels": rows,
                      "latency_ms": {"cortexA76": measured[-1][1], "mine": predicted_ms}})  # fmt: skip
    lines.append(
        {"id": "u", "family": "b", "latency_ms": {"cortexA76": 1.0}, "kernels": [["fft", 7, 8, 8, 1, 1]]}
    )
    write(place / "m.jsonl", "\n".join(map(json.dumps, lines)))
    evaluate = ("predictors", "evaluate", "--device", "cortexA76", "--data", "m.jsonl", "--json")
    answer = quadnas(*evaluate).json
    unseen = answer.pop("held_out")
    assert unseen["models"] == sum(in_the_held_out_fifth(line["kernels"]) for line in lines) > 0
    ranks = [[sorted(column).index(value) for value in column] for column in zip(*measured, strict=True)]
    distance = sum((a - b) ** 2 for a, b in zip(*ranks, strict=True))
    levels = dict(model.card.error_quantiles or ())
    inside = [levels[0.05] <= one_ms / predicted_ms <= levels[0.95] for predicted_ms, one_ms in measured]
    assert answer == {
        "device": "cortexA76",
        "models": 6,
        "uncovered_models": 1,
        "within_5": pytest.approx(2 / 6),
        "within_10": pytest.approx(3 / 6),
        "within_15": pytest.approx(4 / 6),
        "rmspe": pytest.approx(((0.04**2 + 0.07**2 + 0.108**2 + 0.5**2) / 5) ** 0.5),
        "spearman": pytest.approx(1 - 6 * distance / (5 * (5**2 - 1))),
        "interval_90": sum(inside) / 5,
        "families": {
            "a": {"models": 3, "within_10": pytest.approx(2 / 3), "interval_90": sum(inside[::2]) / 3},
            "b": {"models": 3, "within_10": pytest.approx(1 / 3), "interval_90": sum(inside[1::2]) / 2},
        },
    }
    other = quadnas(*evaluate, "--column", "mine").json
    assert (other["models"], other["uncovered_models"], other["within_5"]) == (5, 0, 1)


def in_the_held_out_fifth(rows: Any) -> bool:
    texts = sorted(f"{op} {h} {h} {cin} {cout} {k} {s}" for op, h, cin, cout, k, s in rows)
    return int(hashlib.sha256("\n".join(texts).encode()).hexdigest(), 16) % 5 == 0


def test_a_space_is_shown_with_its_range_on_every_device(place: Path) -> None:
    answer = quadnas("spaces", "show", "tiny.yaml", "--json").json
    assert list(answer) == ["name", "slots", "architectures", "input_size", "latency_ms"]
    assert (answer["name"], answer["slots"], answer["architectures"], answer["input_size"]) == (
        "tiny",
        4,
        3**4,
        224,
    )
    assert set(answer["latency_ms"]) >= {"cortexA76", "myriadvpu", "a100"}
    space = load_space("tiny.yaml")
    for device in ("cortexA76", "a100"):
        row = answer["latency_ms"][device]
        assert list(row) == ["batch", "min", "p10", "p50", "p90", "max"]
        model = load_device(device)
        assert row["batch"] == model.batch
        every = [
            estimate(model, kernels_of(space.layers(choices, 1000), 224, model)).latency_ms
            for choices in itertools.product(range(3), repeat=4)
        ]
        known = sorted(ms for ms in every if ms is not None)
        assert len(known) == 81
        assert [row["min"], row["max"]] == pytest.approx([known[0], known[-1]])
        for key, rank in (("p10", 8), ("p50", 40), ("p90", 72)):
            assert known[rank - 5] <= row[key] <= known[rank + 5]
    one = quadnas(
        "spaces", "show", "tiny.yaml", "--device", "a100", "--input-size", 64, "--batch", 2, "--json"
    ).json
    assert list(one["latency_ms"]) == ["a100"]
    assert (one["input_size"], one["latency_ms"]["a100"]["batch"]) == (64, 2)


def test_devices_are_listed_with_their_source_and_error() -> None:
    answer = quadnas("devices", "--json").json
    assert set(answer) >= {"cortexA76", "myriadvpu", "a100"}
    for name, row in answer.items():
        assert {"source", "batch", "models", "within_10", "rmspe"} <= set(row)
        card = yaml.safe_load(
            (locate("latency_predictors", name) / "card.yaml").read_text().rpartition("sha256")[0]
        )
        assert row["source"] == card["source"]
        assert row["within_10"] == card["held_out"]["within_10"]


def test_without_json_the_answer_is_for_people(place: Path, found: Found) -> None:
    text = quadnas("search", "--resume", found.run).out
    assert "predicted, not measured" in text
    assert str(found.run / "model.yaml") in text
    assert "on cortexA76" in quadnas("latency", found.run / "model.yaml", "--device", "cortexA76").out
    assert "81 architectures" in quadnas("spaces", "show", "tiny.yaml", "--device", "a100").out
    names = [line.split()[0] for line in quadnas("spaces", "list").out.splitlines()]
    assert names == sorted(names)
    assert "quadranet" in names
    assert "359 images" in quadnas("evaluate", found.run / "model.yaml", found.run / "model.safetensors").out
