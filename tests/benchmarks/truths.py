"""Ground truths that are made in no time."""

from pathlib import Path

from benchmarks.ground_truth.plan import Truth
from benchmarks.ground_truth.table import Row
from quadnas.data.augmentation import NO_AUGMENTATION
from quadnas.training.recipe import Recipe

SEVEN = "[{block: quadra, kernel: [3, 5, 7], expansion: [2, 4]}, {block: identity}]"
SPACE = """
format: quadnas-space/1
description: Two slots.
candidates: [{block: quadra, kernel: [3], expansion: [2]}, {block: identity}]
stem: {block: patchify, stride: 4}
downsample: {block: downsample, stride: 2}
stages: [{channels: 8, depth: 2}]
head: {block: classifier}
"""
HEADER = {"space": "toy", "epochs": 1}


def row(architecture: str, seed: int = 0, **values: float) -> Row:
    """A row whose costs do not matter."""
    scores = {"accuracy": 0.5, "loss": 1.0, **values}
    return Row(
        architecture=architecture, seed=seed, seconds=1.0, latency_ms={}, macs=1, parameters=1,
        accuracy=scores["accuracy"], loss=scores["loss"],
    )  # fmt: skip


def tiny_truth(folder: Path, **changes: object) -> Truth:
    """All four networks of two slots, trained for two steps."""
    path = folder / "tiny.yaml"
    path.write_text(SPACE)
    known = {
        "space": str(path), "data": "digits", "train_images": 64, "train_size": 16, "epochs": 1,
        "recipe": Recipe(batch_size=32, augmentation=NO_AUGMENTATION), "devices": ("cortexA76",), "input_size": 32,
        "networks": 4, "repeated": 2, "seeds": 2, "limits": (0.5,), "finalists": 1,
    }  # fmt: skip
    return Truth.model_validate({**known, **changes})
