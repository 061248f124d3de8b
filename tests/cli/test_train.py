"""quadnas train: settings from a file, options that win over it, what is refused, the published recipe."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from quadnas.config import write_yaml
from quadnas.ops.quadratic import quadratic_backend
from quadnas.resources import locate
from quadnas.run.folder import RunFolder
from tests.cli.command import quadnas, write
from tests.training.toys import QUADRA, toy_spec

SETTINGS = "train_images: 64\ntrain_size: 16\nepochs: 7\nseed: 3\nrecipe: {batch_size: 16, ema_decay: 0.5}\n"


def test_options_win_over_the_file(place: Path) -> None:
    write(place / "toy.yaml", write_yaml(toy_spec(QUADRA, QUADRA)))
    write(place / "settings.yaml", SETTINGS)
    answer = quadnas("train", "toy.yaml", "--config", "settings.yaml", "--epochs", 1, "--json")
    run = Path(answer.json["run"])
    assert run == Path("runs/train-toy")
    settings = RunFolder.open(place / run).settings
    assert (settings["epochs"], settings["seed"], settings["train_size"]) == (1, 3, 16)
    assert (settings["recipe"]["ema_decay"], settings["recipe"]["rate"]) == (0.5, 2e-3)
    assert "trained (last weights)" in answer.err


def test_a_run_goes_on_with_the_arithmetic_it_began_with(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if quadratic_backend("cpu", torch.float32).name != "native":
        pytest.skip("no C compiler, so there is one back-end alone")
    write(place / "toy.yaml", write_yaml(toy_spec(QUADRA, QUADRA)))
    write(place / "settings.yaml", SETTINGS)
    train = ("train", "toy.yaml", "--config", "settings.yaml", "--epochs", 1, "--out", "run", "--json")
    answer = quadnas(*train)
    monkeypatch.setenv("QUADNAS_NATIVE", "0")
    parts = "run goes on only with what it was started with", "back-end of the quadratic convolution changed"
    quadnas("train", "--resume", "run").refused(2, *parts)
    monkeypatch.delenv("QUADNAS_NATIVE")
    assert quadnas("train", "--resume", "run", "--json").json == answer.json


def test_a_step_that_needs_too_much_memory_says_what_helps(place: Path) -> None:
    write(place / "toy.yaml", write_yaml(toy_spec(QUADRA, QUADRA)))
    answer = quadnas("train", "toy.yaml", "--train-size", 1_000_000, "--out", "run")
    assert answer.code == 5
    assert "quadnas: out of memory (" in answer.err
    assert "recipe.gradient_accumulation" in answer.err
    assert "Traceback" not in answer.err


def test_a_wrong_file_is_refused_before_there_is_a_run(place: Path) -> None:
    write(place / "toy.yaml", write_yaml(toy_spec(QUADRA, QUADRA)))
    for text, parts in {
        "recipe: {ema: 0.9}": ("settings.yaml", "'recipe.ema'", "ema_decay"),
        "recipe: {drop_path: 1.0}": ("settings.yaml", "recipe.drop_path", "less than 1"),
        "recipe: {precision: half}": ("recipe.precision", "'fp32', 'bf16' or 'fp16'"),
        "model: toy": ("settings.yaml", "command line", "remove 'model'"),
    }.items():
        write(place / "settings.yaml", text)
        quadnas("train", "toy.yaml", "--config", "settings.yaml").refused(2, *parts)
    assert not (place / "runs").exists()
    quadnas("train", "--config", "settings.yaml").refused(2, "needs a model")
    quadnas("train", "--resume", "run", "--config", "settings.yaml").refused(
        2, "--resume takes every setting"
    )


def test_the_published_recipe_runs_on_files_laid_out_as_imagenet(place: Path) -> None:
    for part in ("train", "val"):
        for number, name in enumerate(("n01440764", "n01443537")):
            (place / "tiny" / part / name).mkdir(parents=True)
            for shade in range(4):
                image = Image.new("RGB", (50, 40), (60 * shade, 200 * number, 30))
                image.save(place / "tiny" / part / name / f"{shade}.JPEG")
    answer = quadnas(
        "train", "quadranet12_xxs", "--config", locate("experiments", "imagenet_retrain"),
        "--data", "imagenet:tiny", "--epochs", 2, "--train-size", 32, "--json",
    )  # fmt: skip
    assert answer.json["images"] == 8
    assert (place / answer.json["run"] / "model.safetensors").is_file()
