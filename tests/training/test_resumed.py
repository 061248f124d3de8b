"""A training that dies at any step goes on to the identical bits, with everything of the recipe on."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from quadnas.run.events import Event, WeightStep
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.training.standalone import TrainSettings, new_run, train_network
from tests.reliability.runs import journal, outcome
from tests.training.toys import MBCONV, QUADRA, toy_settings, toy_spec

EVERYTHING: dict[str, Any] = {
    "augmentation": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "random_erasing": 0.25},
    "drop_path": 0.4,
    "ema_decay": 0.8,
    "gradient_accumulation": 2,
}
STEPS = 12


class Killed(Exception):  # noqa: N818
    """The process ends here."""


def go_on(path: Path, settings: TrainSettings, dies_at: int | None = None) -> None:
    def observe(event: Event) -> None:
        if isinstance(event, WeightStep) and event.step == dies_at:
            raise Killed

    clock = itertools.count().__next__
    with RunFolder.open(path) if path.exists() else new_run(settings, path) as folder:
        train_network(folder, observe, StopFlag(), clock)


@pytest.mark.parametrize(
    ("block", "recipe", "moments"),
    [
        (QUADRA, {}, (1, 2, 3, 6, 7, 11, 12)),
        (QUADRA, {"gradient_checkpointing": True}, (7,)),
        (QUADRA, {"precision": "bf16"}, (7,)),
        (MBCONV, {"precision": "fp16"}, (6, 7)),
    ],
)
def test_killed_at_a_step(block: int, recipe: dict[str, Any], moments: Any, tmp_path: Path) -> None:
    settings = toy_settings(toy_spec(block, block), **EVERYTHING, **recipe)
    go_on(tmp_path / "whole", settings)
    whole = outcome(tmp_path / "whole")
    assert [e["step"] for e in whole["journal"] if e["event"] == "WeightStep"] == list(range(1, STEPS + 1))
    for moment in moments:
        with pytest.raises(Killed):
            go_on(tmp_path / f"{moment}", settings, moment)
        go_on(tmp_path / f"{moment}", settings)
        assert outcome(tmp_path / f"{moment}") == whole, moment


def test_the_average_is_what_is_exported_and_both_scores_are_told(tmp_path: Path) -> None:
    settings = toy_settings(toy_spec(MBCONV, MBCONV), **EVERYTHING)
    go_on(path := tmp_path / "run", settings)
    committed = load_file(max(path.glob("checkpoint-*.safetensors")))
    exported = load_file(path / "model.safetensors")
    for name, tensor in exported.items():
        assert tensor.equal(committed[f"average/module.{name}"])
    changed = [name for name, tensor in exported.items() if not tensor.equal(committed[f"network/{name}"])]
    assert any(name.endswith("running_mean") for name in changed)
    last, average = (event for event in journal(path) if event["event"] == "Evaluated")
    assert (last["network"], average["network"]) == ("trained (last weights)", "trained")
    assert last["loss"] != average["loss"]


def test_without_an_average_the_last_weights_are_exported(tmp_path: Path) -> None:
    go_on(path := tmp_path / "run", toy_settings(toy_spec(QUADRA, QUADRA)))
    committed = load_file(max(path.glob("checkpoint-*.safetensors")))
    exported = load_file(path / "model.safetensors")
    assert all(tensor.equal(committed[f"network/{name}"]) for name, tensor in exported.items())
    assert len([event for event in journal(path) if event["event"] == "Evaluated"]) == 1
