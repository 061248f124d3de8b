"""Latency-model throughput: networks per second, priced one by one and all at once.

Run: python -m benchmarks.latency_throughput [--device cortexA76] [--networks 1000]
"""

import argparse
import random
import time
from collections.abc import Callable

from quadnas.latency.devices import load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import estimate


def random_quadranet(choose: random.Random, batch: int) -> list[Kernel]:
    """A QuadraNet36 at 224 whose 36 blocks draw their kernel size and expansion: some 440 kernels."""
    kernels = [Kernel("conv", 224, 224, (3,), 64, 4, 4, batch)]
    side, channels = 56, 64
    for stage, depth in enumerate((3, 3, 27, 3)):
        if stage:
            kernels.append(Kernel("conv", side, side, (channels,), 2 * channels, 2, 2, batch))
            side, channels = side // 2, 2 * channels
        for _ in range(depth):
            size, wide = choose.choice((3, 5, 7)), choose.choice((2, 4)) * channels
            norm = Kernel("layernorm", side, side, (channels,), channels, batch=batch)
            pair = [
                Kernel(op, side, side, (channels,) * 2, channels, batch=batch) for op in ("mul", "add", "add")
            ]
            kernels += [
                norm,
                *[Kernel("dwconv", side, side, (channels,), channels, size, batch=batch)] * 3,
                *pair,
                norm,
                Kernel("conv", side, side, (channels,), wide, batch=batch),
                Kernel("gelu", side, side, (wide,), wide, batch=batch),
                Kernel("conv", side, side, (wide,), channels, batch=batch),
                pair[-1],
            ]
    return kernels


def per_second(work: Callable[[], object], count: int) -> float:
    """Networks per second of one run over ``count`` networks."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def main() -> None:
    """Print one line per way of pricing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cortexA76")
    parser.add_argument("--networks", type=int, default=1000)
    arguments = parser.parse_args()
    model = load_device(arguments.device)
    choose = random.Random(0)
    networks = [random_quadranet(choose, model.batch) for _ in range(arguments.networks)]
    unique = list({kernel for network in networks for kernel in network})
    alone = per_second(lambda: [estimate(model, network) for network in networks], len(networks))
    table = {k: p.latency_ms or 0.0 for k, p in zip(unique, model.price(unique), strict=True)}
    looked_up = per_second(lambda: [sum(table[k] for k in network) for network in networks], len(networks))
    print(f"{arguments.device}: {len(networks)} networks, {len(unique)} different kernels")
    print(f"priced one by one: {alone:,.0f} networks/s")
    print(f"unique kernels priced once, then summed: {looked_up:,.0f} networks/s")


if __name__ == "__main__":
    main()
