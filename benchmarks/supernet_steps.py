"""A full search step, weights and architecture, of ours and of ProxylessNAS, against plain training of one subnet.

The floor is an average subnet, that of 200 random ones whose multiply-accumulates are nearest to their mean, as a
plain network with its own optimiser. A full step updates the weights and the architecture parameters once: for
ProxylessNAS a weight step and a two-path step, for ``swap`` a weight step with its probe and what the gains say;
both then solve for the multiplier of a limit half-way up the range of the space. Seconds are interleaved medians
over random paths; peak memory is that of a process that makes steps of one kind, above what it held before it
built anything.

Run: python -m benchmarks.supernet_steps [--space quadranet] [--train-size 32] [--batch 64] [--threads 2]
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.memory import PeakMemory
from benchmarks.timing import interleaved_medians, print_ratios
from quadnas.data.base import Batch
from quadnas.network import Network
from quadnas.search.paths import candidate_macs, uniform_path
from quadnas.search.problem import Problem, pose
from quadnas.search.settings import SearchSettings
from quadnas.search.softmax import SoftmaxLearner
from quadnas.search.strategies.proxyless import Proxyless
from quadnas.search.strategies.swap import Swap
from quadnas.search.strategy import Moment
from quadnas.training.loop import Loss
from quadnas.training.recipe import Recipe

MEMORY_STEPS = 24
"""Enough that separate candidates have met with moments of their own in the optimiser."""

KINDS = ("plain training of an average subnet (floor)", "ProxylessNAS, both steps", "swap, both steps")


def steps(
    space: str, size: int, batch_size: int, kinds: tuple[str, ...] = KINDS
) -> dict[str, Callable[[], object]]:
    """One callable for each of these kinds of step."""
    torch.manual_seed(0)
    recipe = Recipe(batch_size=batch_size)
    free = SearchSettings(device="cortexA76", max_latency_ms=1e9, space=space)
    half_way = float(np.mean(pose(free, 10).limits[0].costs.range))
    problem = pose(free.model_copy(update={"max_latency_ms": half_way}), 10)
    images = torch.randn(batch_size, 3, size, size).contiguous(memory_format=torch.channels_last)
    data = Batch(images, torch.randint(10, (batch_size,)))
    generator = torch.Generator().manual_seed(1)

    def floor() -> Callable[[], object]:
        network = Network(problem.space.layers(average_path(problem, generator), 10))
        return _weight_step(network, recipe, lambda: iter([_loss(network(data.images), data)]))

    def search(strategy: SoftmaxLearner) -> Callable[[], object]:
        numbers = count()
        weights = _weight_step(
            strategy.supernet,
            recipe,
            lambda: strategy.losses(data, F.cross_entropy, Moment(next(numbers))),
        )

        def both() -> None:
            weights()
            strategy.update_architecture(
                iter([data]), generator, lambda task, p: task + 0.5 * problem.bounds.expected(p) / half_way
            )
            strategy.hold()

        return both

    makers: tuple[Callable[[], Callable[[], object]], ...] = (
        floor,
        lambda: search(Proxyless(problem)),
        lambda: search(Swap(problem)),
    )
    return {kind: make() for kind, make in zip(KINDS, makers, strict=True) if kind in kinds}


def average_path(problem: Problem, generator: torch.Generator) -> list[int]:
    """Of 200 random paths the one whose multiply-accumulates are nearest to their mean."""
    macs = candidate_macs(problem)
    paths = [uniform_path(problem.bounds.priced, generator) for _ in range(200)]
    totals = [macs[np.arange(len(path)), path].sum() for path in paths]
    return min(zip(paths, totals, strict=True), key=lambda pair: abs(pair[1] - np.mean(totals)))[0]


def _loss(logits: torch.Tensor, data: Batch) -> Loss:
    return Loss(F.cross_entropy(logits, data.labels), logits)


def _weight_step(
    module: nn.Module, recipe: Recipe, losses: Callable[[], Iterator[Loss]]
) -> Callable[[], None]:
    optimizer = recipe.optimizer(module)

    def step() -> None:
        optimizer.zero_grad()
        for loss in losses():
            loss.value.backward()
        optimizer.step()

    return step


def alone(arguments: list[str], kind: str) -> float:
    """Peak megabytes of one kind of step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.supernet_steps", *arguments, "--alone", kind]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    """Print the medians, the ratios and the memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--space", default="quadranet")
    parser.add_argument("--train-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--alone", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.alone:
        memory = PeakMemory()
        (step,) = steps(options.space, options.train_size, options.batch, (options.alone,)).values()
        for _ in range(MEMORY_STEPS):
            step()
        print(json.dumps(memory.megabytes))
        return
    medians = interleaved_medians(steps(options.space, options.train_size, options.batch), options.rounds, 6)
    print_ratios(
        f"{options.space}, {options.train_size}x{options.train_size}, batch {options.batch}, "
        f"{options.threads} threads",
        medians,
        KINDS[0],
    )
    print(f"  swap to ProxylessNAS{medians[KINDS[2]] / medians[KINDS[1]]:>45.2f}x")
    print(f"peak memory of {MEMORY_STEPS} steps with everything that they need")
    arguments = [
        "--space", options.space, "--train-size", str(options.train_size),
        "--batch", str(options.batch), "--threads", str(options.threads),
    ]  # fmt: skip
    for kind in KINDS:
        print(f"  {kind:<44}{alone(arguments, kind):>10.0f} MB")


if __name__ == "__main__":
    main()
