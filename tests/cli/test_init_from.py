"""``quadnas train --init-from``: what a user sees of a start from weights that exist."""

from pathlib import Path

from tests.cli.command import quadnas, write
from tests.cli.conftest import Found

QUICK = ("--epochs", "1", "--train-size", "32")


def test_a_plain_network_starts_a_quadratic_one(place: Path, found: Found) -> None:
    quadra = (found.run / "model.yaml").read_text()
    assert "block: quadra" in quadra
    write(place / "quadra.yaml", quadra)
    write(
        place / "conv.yaml", quadra.replace("block: quadra", "block: conv").replace("quadratic_layers: 0", "")
    )
    assert quadnas("train", "conv.yaml", *QUICK, "--out", "plain").code == 0
    started = ("train", "quadra.yaml", *QUICK, "--init-from", "plain/model.safetensors", "--json")
    answer = quadnas(*started, "--out", "started")
    assert "became linear terms of quadratic operators" in answer.err
    scratch = quadnas("train", "quadra.yaml", *QUICK, "--json", "--out", "scratch")
    assert answer.json["loss"] < scratch.json["loss"]  # two epochs against one
    assert quadnas("train", "--resume", "started", "--json").json == answer.json


def test_weights_that_do_not_fit_are_refused_before_there_is_a_run_folder(place: Path, found: Found) -> None:
    arguments = ("train", "quadranet12_xxs", *QUICK, "--out", "run", "--init-from")
    quadnas(*arguments, found.run / "model.safetensors").refused(2, "does not fit", "convnext_tiny")
    quadnas(*arguments, "nowhere.safetensors").refused(2, "no weights file nowhere.safetensors")
    write(place / "model.pth", "weights")
    quadnas(*arguments, "model.pth").refused(4, "model.pth is not an intact safetensors file")
    assert not Path("run").exists()


def test_a_run_keeps_the_weights_it_started_from(place: Path, found: Found) -> None:
    weights = found.run / "model.safetensors"
    answer = quadnas("train", "--resume", found.run, "--init-from", weights)
    answer.refused(2, "--resume takes every setting from the run")
