"""Interleaved timing: variants in turn, so that a drift of the machine's speed meets all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved_medians(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of every variant over ``rounds`` rounds in which each runs once, by ``clock``."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(warmup + rounds):
        for name, run in variants.items():
            start = clock()
            run()
            if number >= warmup:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_ratios(title: str, medians: Mapping[str, float], reference: str) -> None:
    """A table of milliseconds and ratios to the reference."""
    print(title)
    for name, seconds in medians.items():
        print(f"  {name:<44}{1e3 * seconds:>10.1f} ms{seconds / medians[reference]:>8.2f}x")
