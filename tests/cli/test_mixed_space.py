"""A search among families: every slot of the shipped mixed space holds one of four."""

import json
from pathlib import Path

from quadnas.network import load_space
from tests.cli.command import quadnas, write

SEARCH = """\
device: cortexA76
max_latency_ms: 45
space: mixed
strategy: proxyless
train_size: 32
train_images: 64
schedule: {warmup_epochs: 1, search_epochs: 2, retrain_epochs: 0, architecture_every: 1}
recipe: {batch_size: 16}
"""


def test_families_compete_for_a_slot(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = write(tmp_path / "search.yaml", SEARCH)
    answer = quadnas("search", "--config", config, "--out", run, "--json")
    assert answer.json["latency_ms"] <= 45
    result = json.loads((run / "result.json").read_text())
    space = load_space("mixed")
    for slot, record in zip(space.slots, result["slots"], strict=True):
        assert tuple(record["labels"]) == slot.labels
        free = {label for label, ms in zip(slot.labels, record["latency_ms"], strict=True) if ms == 0}
        assert free == {"identity"}
    predicted = quadnas("latency", run / "model.yaml", "--device", "cortexA76", "--json")
    assert predicted.json["latency_ms"] == answer.json["latency_ms"]
