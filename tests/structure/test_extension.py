"""A block family, a latency back-end, a strategy and an export target are one file each.

Toys of all four are dropped into a copy of the package, or installed as a distribution with entry points; a
search then finds them by name and uses them, in a process of its own.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.numpy

from quadnas.latency.card import read_card, write_card
from quadnas.resources import locate
from tests.structure.source import PACKAGE, ROOT

BLOCK = '''
from torch import nn

from quadnas.blocks.base import BLOCKS, Block, Ports, require_same_shape
from quadnas.latency.kernels import Kernel, Operator


@BLOCKS.register("pointwise")
class Pointwise(Block):
    """A 1x1 convolution, ``repeat`` times."""

    repeat: int

    def check(self, ports: Ports) -> None:
        require_same_shape("pointwise", ports)

    def build(self, ports: Ports) -> nn.Module:
        return nn.Sequential(*(nn.Conv2d(ports.channels_in, ports.channels_in, 1) for _ in range(self.repeat)))

    def operators(self, ports: Ports, height: int, width: int) -> list[Operator]:
        kernel = Kernel("conv", height, width, (ports.channels_in,), ports.channels_in)
        return [Operator(kernel, (number - 1,)) for number in range(self.repeat)]
'''

BACK_END = '''
from quadnas.latency.model import BACK_ENDS, Coverage, LatencyModel, Price


@BACK_ENDS.register("counting")
class Counting(LatencyModel):
    """Half a millisecond for every kernel."""

    def price(self, kernels):
        return [Price(0.5, Coverage.EXACT) for _ in kernels]
'''

STRATEGY = '''
import numpy as np
import torch

from quadnas.search.strategy import STRATEGIES, ArchitectureLearner, ArchitectureUpdate
from quadnas.supernet.supernet import Supernet
from quadnas.training.loop import Loss


@STRATEGIES.register("last-first")
class LastFirst(ArchitectureLearner):
    """Likes later candidates better, whatever it sees."""

    def __init__(self, problem):
        self.supernet = Supernet(problem.space, problem.classes)
        self._shape = (len(problem.space.slots), len(problem.space.slots[0].candidates))

    def losses(self, batch, criterion, moment):
        slots, candidates = self._shape
        path = torch.randint(candidates, (slots,), generator=moment.generator()).tolist()
        logits = self.supernet(batch.images, path)
        yield Loss(criterion(logits, batch.labels), logits)

    def update_architecture(self, held_out, generator, loss):
        return ArchitectureUpdate(0.0, 0.0)

    def probabilities(self):
        return np.full(self._shape, 1 / self._shape[1])

    def scores(self):
        return np.tile(np.arange(self._shape[1], dtype=float), (self._shape[0], 1))

    def state(self):
        return {}

    def load_state(self, state):
        pass
'''

TARGET = '''
from quadnas.export.base import TARGETS, Target
from quadnas.run.atomic import commit_bytes


def export_names(spec, network, notes, path):
    """Only the names of the blocks."""
    commit_bytes(path, " ".join(layer.block for layer in spec.layers).encode())
    return [path]


TARGETS.register("names")(Target(".txt", export_names))
'''

# name of the file, where it is dropped, entry-point group
TOYS = {
    "toy_block": (BLOCK, "blocks", "quadnas.blocks"),
    "toy_back_end": (BACK_END, "latency/backends", "quadnas.latency_back_ends"),
    "toy_strategy": (STRATEGY, "search/strategies", "quadnas.strategies"),
    "toy_target": (TARGET, "export/targets", "quadnas.export"),
}

SPACE = """
format: quadnas-space/1
description: toys
candidates: [{block: pointwise, repeat: [1, 2, 3]}]
stem: {block: patchify, stride: 4}
downsample: {block: downsample, stride: 2}
stages: [{channels: 4, depth: 1}, {channels: 8, depth: 1}]
head: {block: classifier}
"""

SEARCH = """
device: ./device
space: toy.yaml
strategy: last-first
max_latency_ms: 5.7
train_images: 100
schedule: {warmup_epochs: 0, search_epochs: 1, retrain_epochs: 0}
"""

COMMANDS = """
import sys
import quadnas.cli
print(quadnas.__file__, file=sys.stderr)
for line in ("search --config search.yaml --out run --json", "export run --to names"):
    sys.argv[1:] = line.split()
    try:
        quadnas.cli.main()
    except SystemExit as end:
        assert not end.code, end.code
"""


def dropped_in(place: Path) -> Path:
    """A copy of the source tree with the toys in their folders."""
    tree = place / "tree"
    shutil.copytree(PACKAGE, tree / "quadnas", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("search_spaces", "latency_predictors"):
        shutil.copytree(ROOT / folder, tree / folder)
    for name, (text, room, _) in TOYS.items():
        (tree / "quadnas" / room / f"{name}.py").write_text(text)
    return tree


def plugged_in(place: Path) -> Path:
    """A distribution that installs the toys beside the package."""
    plugin = place / "plugin"
    information = plugin / "toys-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    groups = "".join(f"[{group}]\n{name} = {name}\n" for name, (_, _, group) in TOYS.items())
    (information / "entry_points.txt").write_text(groups)
    for name, (text, _, _) in TOYS.items():
        (plugin / f"{name}.py").write_text(text)
    return plugin


@pytest.mark.parametrize("how", [dropped_in, plugged_in])
def test_one_file_each_is_found_and_used(tmp_path: Path, how: object) -> None:
    assert callable(how)
    added = how(tmp_path)
    device = tmp_path / "device"
    shutil.copytree(locate("latency_predictors", "cortexA76"), device)
    card = read_card(device / "card.yaml").model_copy(update={"back_end": "counting"})
    (device / "card.yaml").write_bytes(write_card(card))
    (tmp_path / "toy.yaml").write_text(SPACE)
    (tmp_path / "search.yaml").write_text(SEARCH)
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(added)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(str(added)) == (how is dropped_in)
    answer, *files = done.stdout.splitlines()
    # stem 2 kernels, down-sampling 2, head 3: 3.5 ms, which leaves 4 of the 6 convolutions wanted
    assert json.loads(answer)["latency_ms"] == (2 + 2 + 3 + 4) * 0.5
    assert json.loads(answer)["architecture"] in {
        "pointwise-r3|pointwise-r1",
        "pointwise-r2|pointwise-r2",
        "pointwise-r1|pointwise-r3",
    }
    assert files == ["model.txt"]
    assert (tmp_path / "model.txt").read_text() == "patchify pointwise downsample pointwise classifier"
    weights = safetensors.numpy.load((tmp_path / "run" / "model.safetensors").read_bytes())
    assert sum(name.startswith(("layers.1.", "layers.3.")) for name in weights) == 2 * 4  # weight and bias
