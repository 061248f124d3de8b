"""A weight step and an architecture step of the ProxylessNAS strategy against plain training of one subnet.

The floor is the same path as a plain network with its own optimiser. Seconds are interleaved medians over
random paths; peak memory is that of a process that does nothing else, less the same process without steps.

Run: python -m benchmarks.supernet_steps [--space quadranet] [--train-size 32] [--batch 64] [--threads 2]
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks.timing import interleaved_medians, print_ratios
from quadnas.data.base import Batch
from quadnas.network import Network
from quadnas.search.problem import pose
from quadnas.search.settings import SearchSettings
from quadnas.search.strategies.proxyless import Proxyless
from quadnas.training.recipe import Recipe

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

    def update(forward: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        F.cross_entropy(forward(), data.labels).backward()
        optimizer.step()

    return {
        KINDS[0]: lambda: update(lambda: network(data.images), network_optimizer),
        KINDS[1]: lambda: update(
            lambda: search.logits(data.images, generator, warming_up=True), supernet_optimizer
        ),
        KINDS[2]: lambda: search.update_architecture(data, generator, multiplier=0.5),
    }


def peak_megabytes(arguments: list[str], kind: str, count: int) -> float:
    """Peak resident memory of a fresh process that builds everything and makes ``count`` steps of a kind."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.supernet_steps",
        *arguments,
        "--alone",
        kind,
        "--count",
        str(count),
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output))


def main() -> None:
    """Print the medians, the ratios and the memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--space", default="quadranet")
    parser.add_argument("--train-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--alone", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    variants = steps(options.space, options.train_size, options.batch)
    if options.alone:
        for _ in range(options.count):
            variants[options.alone]()
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
        return
    medians = interleaved_medians(variants, options.rounds)
    print_ratios(
        f"{options.space}, {options.train_size}x{options.train_size}, batch {options.batch}, "
        f"{options.threads} threads",
        medians,
        KINDS[0],
    )
    print("peak memory above the built networks, 8 steps")
    arguments = [
        "--space", options.space, "--train-size", str(options.train_size),
        "--batch", str(options.batch), "--threads", str(options.threads),
    ]  # fmt: skip
    for kind in KINDS:
        extra = peak_megabytes(arguments, kind, 8) - peak_megabytes(arguments, kind, 0)
        print(f"  {kind:<44}{extra:>10.0f} MB")


if __name__ == "__main__":
    main()
