"""The recipe inside a search: what concerns any module trains the supernet, all of it retrains the network."""

import json
from pathlib import Path

from safetensors.torch import load_file

from tests.cli.command import TINY_SEARCH, TINY_SPACE, quadnas, write
from tests.reliability.runs import journal

RECIPE = {
    "augmentation": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0},
    "drop_path": 0.2,
    "ema_decay": 0.5,
    "gradient_accumulation": 2,
    "precision": "bf16",
}


def test_a_search_trains_by_its_recipe(tmp_path: Path) -> None:
    space, run = write(tmp_path / "tiny.yaml", TINY_SPACE), tmp_path / "run"
    config = write(tmp_path / "search.yaml", f"{TINY_SEARCH}space: {space}\nrecipe: {json.dumps(RECIPE)}\n")
    answer = quadnas("search", "--config", config, "--out", run, "--json")
    assert answer.json["latency_ms"] <= 3
    steps = journal(run, "PhaseStarted", "Notice")
    told = {"WeightStep", "ArchitectureStep", "Derived", "Evaluated"}
    assert {step["event"] for step in steps} == told
    last, average = steps[-2:]
    assert (last["network"], average["network"]) == ("retrained (last weights)", "retrained")
    assert answer.json["accuracy"] == average["accuracy"]
    committed = load_file(max(run.glob("checkpoint-*.safetensors")))
    for name, tensor in load_file(run / "retrained.safetensors").items():
        assert tensor.equal(committed[f"average/module.{name}"])
