"""Search steps of NNI 3.0's ProxylessNAS strategy on one of our search spaces, one at a time on request.

NNI lives in an environment of its own; this module runs there as a process that makes a step whenever a line
comes in, and here as its client. Seen working with Python 3.11 and NNI unpatched (the warnings about unknown
``torch.nn`` classes are harmless):

    python3.11 -m venv ENV
    ENV/bin/pip install torch==2.13.0
    ENV/bin/pip install nni==3.0 pytorch_lightning "setuptools<81" pydantic safetensors

which takes pytorch-lightning 2.6.6 and numpy 2.4.6. The last two packages are for our blocks: the candidates, and
so the space, are the very modules that our supernet consists of, with our optimiser and channels-last images.

What NNI does (nni/nas/oneshot/pytorch, version 3.0): every batch is an architecture step on held-out data and then
a weight step, both on one sampled path. Full gates, not two paths: in the backward pass of both steps alike,
every candidate that was not sampled runs forward without gradient (in training mode, so batch normalisation
counts it). The architecture step also computes the gradients of the weights, and drops them. There is no latency
term unless ``penalty`` is given, which it is not here.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from benchmarks.memory import PeakMemory
from quadnas.blocks.base import block_of
from quadnas.network import load_space
from quadnas.space.layer import Layer
from quadnas.space.search_space import SearchSpace, Slot

ROOT = Path(__file__).parent.parent
CLASSES = 10


class NniProxyless:
    """NNI's search in a process of its own, which waits for ``step``."""

    def __init__(self, python: str, arguments: Sequence[str], steps: int) -> None:
        """``python``: of the environment with NNI; ``arguments``: of this module; ``steps``: at most."""
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.nni_proxyless", *arguments, "--steps", str(steps)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.about: dict[str, Any] = self._reply()
        """Versions, and the number of parameters."""
        self.peak_megabytes = 0.0
        """Peak memory of all steps so far, above what the process held before the first."""
        self.cpu_seconds = 0.0
        """Of all threads, up to the end of the last step."""

    def step(self) -> None:
        """One batch: architecture and weights."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        reply = self._reply()
        self.peak_megabytes, self.cpu_seconds = reply["peak_megabytes"], reply["cpu_seconds"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._process.communicate()
            code = self._process.returncode
            raise SystemExit(f"NNI's process ended with code {code}; its message is above")
        found: dict[str, Any] = json.loads(line)
        return found


def model_space(space: SearchSpace) -> nn.Module:
    """The space in NNI's words."""
    pytorch = import_module("nni.nas.nn.pytorch")
    head = space.head.model_copy(update={"channels_out": CLASSES})

    def choice(slot: Slot, label: str) -> nn.Module:
        candidates = {name: _module(layer) for name, layer in slot.candidates.items()}
        found: nn.Module = pytorch.LayerChoice(candidates, label=label)
        return found

    class Space(pytorch.ModelSpace):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.positions = nn.ModuleList(
                choice(position, f"slot{number}") if isinstance(position, Slot) else _module(position)
                for number, position in enumerate((*space.positions, head))
            )

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = images.contiguous(memory_format=torch.channels_last)
            for position in self.positions:
                x = position(x)
            return x

    return Space()


def _module(layer: Layer) -> nn.Module:
    block, ports = block_of(layer)
    return block.in_supernet().build(ports)


def _optimizer(parameters: Any, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)


def serve(space: str, train_size: int, batch: int, steps: int, replies: Any) -> None:
    """NNI's own loop, held before every batch until a line comes in; ``replies`` gets a line of JSON for each."""
    lightning = import_module("pytorch_lightning")
    evaluator = import_module("nni.nas.evaluator.pytorch")
    memory = PeakMemory()
    model = model_space(load_space(space))
    about = {
        "nni": import_module("nni").__version__,
        "pytorch_lightning": lightning.__version__,
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
    }

    class Turns(lightning.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_start(self, *_: object) -> None:
            if not hasattr(self, "begun"):
                print(json.dumps(about), file=replies, flush=True)
                self.begun = True
            sys.stdin.readline()

        def on_train_batch_end(self, *_: object) -> None:
            reply = {"peak_megabytes": memory.megabytes, "cpu_seconds": time.process_time()}
            print(json.dumps(reply), file=replies, flush=True)

    images = torch.randn(batch, 3, train_size, train_size).contiguous(memory_format=torch.channels_last)
    data = [(images, torch.randint(CLASSES, (batch,)))] * steps
    loaders = [evaluator.DataLoader(data, batch_size=None) for _ in ("train", "val")]
    search = evaluator.Classification(
        learning_rate=2e-3, weight_decay=0.05, optimizer=_optimizer, num_classes=CLASSES,
        train_dataloaders=loaders[0], val_dataloaders=loaders[1],
        accelerator="cpu", max_epochs=1, logger=False, callbacks=[Turns()],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    formatted = import_module("nni.nas.space").RawFormatModelSpace(model, search)
    import_module("nni.nas.strategy").Proxyless()(
        formatted, import_module("nni.nas.execution").SequentialExecutionEngine()
    )


def main() -> None:
    """Serve; everything but the replies goes to standard error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--space", required=True)
    for name in ("--train-size", "--batch", "--threads", "--steps"):
        parser.add_argument(name, type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):
        serve(options.space, options.train_size, options.batch, options.steps, sys.__stdout__)


if __name__ == "__main__":
    main()
