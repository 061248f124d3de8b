"""A weight step and an architecture step of the ProxylessNAS strategy against plain training of one subnet.

The floor is one path as a plain network with its own optimiser. Seconds are interleaved medians over random
paths; peak memory is that of a process that makes steps of one kind, above what it held before the first
(Linux: the peak in /proc/self/status is reset).

Run: python -m benchmarks.supernet_steps [--space quadranet] [--train-size 32] [--batch 64] [--threads 2]
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.timing import interleaved_medians, print_ratios
from quadnas.data.base import Batch
from quadnas.network import Network
from quadnas.search.problem import pose
from quadnas.search.settings import SearchSettings
from quadnas.search.strategies.proxyless import Proxyless
from quadnas.training.recipe import Recipe

MEMORY_STEPS = 8
KINDS = ("plain training of one subnet (floor)", "weight step", "architecture step")


def steps(space: str, size: int, batch_size: int) -> dict[str, Callable[[], object]]:
    """One callable per kind of step."""
    torch.manual_seed(0)
    recipe = Recipe(batch_size=batch_size)
    problem = pose(SearchSettings(device="cortexA76", max_latency_ms=300.0, space=space), 10)
    search = Proxyless(problem)
    supernet_optimizer = recipe.optimizer(search.supernet)
    images = torch.randn(batch_size, 3, size, size).contiguous(memory_format=torch.channels_last)
    data = Batch(images, torch.randint(10, (batch_size,)))
    generator = torch.Generator().manual_seed(1)
    path = torch.multinomial(problem.bounds.priced.double(), 1, generator=generator)[:, 0].tolist()
    network = Network(problem.space.layers(path, 10))
    network_optimizer = recipe.optimizer(network)

    def update(loss: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return {
        KINDS[0]: lambda: update(
            lambda: F.cross_entropy(network(data.images), data.labels), network_optimizer
        ),
        KINDS[1]: lambda: update(
            lambda: next(search.losses(data, F.cross_entropy, generator, warming_up=True)).value,
            supernet_optimizer,
        ),
        KINDS[2]: lambda: search.update_architecture(
            iter([data]), generator, lambda task, p: task + 0.5 * problem.bounds.expected(p) / 300
        ),
    }


def peak_megabytes(step: Callable[[], object], count: int) -> float:
    """Peak resident memory of ``count`` steps above what the process holds now."""

    def kilobytes(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))

    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = kilobytes("VmRSS")
    for _ in range(count):
        step()
    return (kilobytes("VmHWM") - before) / 1024


def alone(arguments: list[str], kind: str) -> float:
    """``peak_megabytes`` of one kind of step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.supernet_steps", *arguments, "--alone", kind]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    """Print the medians, the ratios and the memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--space", default="quadranet")
    parser.add_argument("--train-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--alone", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    variants = steps(options.space, options.train_size, options.batch)
    if options.alone:
        print(json.dumps(peak_megabytes(variants[options.alone], MEMORY_STEPS)))
        return
    medians = interleaved_medians(variants, options.rounds)
    print_ratios(
        f"{options.space}, {options.train_size}x{options.train_size}, batch {options.batch}, "
        f"{options.threads} threads",
        medians,
        KINDS[0],
    )
    print(f"peak memory of {MEMORY_STEPS} steps (activations, gradients, moments) above the built networks")
    arguments = [
        "--space", options.space, "--train-size", str(options.train_size),
        "--batch", str(options.batch), "--threads", str(options.threads),
    ]  # fmt: skip
    for kind in KINDS:
        print(f"  {kind:<44}{alone(arguments, kind):>10.0f} MB")


if __name__ == "__main__":
    main()
