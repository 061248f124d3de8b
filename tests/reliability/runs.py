"""What a run has come to, in a form in which two runs can be compared."""

import json
from pathlib import Path
from typing import Any

ARTEFACTS = ("result.json", "model.yaml", "model.safetensors", "retrained.safetensors")


def journal(path: Path, *without: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (path / "journal.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] not in without]


def outcome(path: Path, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every artefact and the last committed tensors to the byte, and all that the journal tells.

    How often a phase was taken up again is no part of it, but it must say truly where.
    """
    done = 0
    for event in journal(path):
        if event["event"] == "WeightStep":
            done = event["step"]
        elif event["event"] == "PhaseStarted":
            assert event["step"] in {0, done}
    newest = max(path.glob("checkpoint-*.safetensors"), default=None)
    return {
        "files": {name: (path / name).read_bytes() for name in ARTEFACTS if (path / name).exists()},
        "tensors": newest and newest.read_bytes(),
        "journal": journal(path, "PhaseStarted", *without),
    }
