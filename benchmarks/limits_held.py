"""Do searches hold their limits, and does the multiplier settle before the knapsack has to cut?

``python -m benchmarks.limits_held`` runs 200 whole searches of tiny spaces (two to six slots, a few steps, no
retraining) under random limits across the feasible range and random seeds: under one device, under two, under a
device and a size; a fifth of them within 1 % above the minimum. It prints how many exceed a limit (none may) and
how close they come to the closest one. ``--settle`` searches 16 slots instead, for longer, under limits across the
range, and prints how far E[ms] and the most probable network are from the limit in the last quarter of the steps,
before anything is derived; ``--plot FILE`` draws them.
"""

import argparse
import random
import sys
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.search import loop
from quadnas.search.problem import Problem, pose
from quadnas.search.result import SearchResult
from quadnas.search.settings import LatencyLimit, SearchSettings

SPACE = """\
format: quadnas-space/1
description: {slots} narrow slots
candidates:
  - {{block: quadra, kernel: [3, 5, 7], expansion: [2, 4]}}
  - {{block: identity}}
stem: {{block: patchify, stride: 4}}
downsample: {{block: downsample, stride: 2}}
stages:
  - {{channels: 8, depth: {first}}}
  - {{channels: 16, depth: {second}}}
head: {{block: classifier}}
"""
FAST, VPU = "cortexA76", "myriadvpu"
SETTLED_AT = (0.1, 0.3, 0.5, 0.7)
SETTLED_SLOTS = 16


def space_file(folder: Path, slots: int) -> str:
    """A space with so many slots, written into ``folder``."""
    path = folder / f"slots{slots}.yaml"
    path.write_text(SPACE.format(slots=slots, first=slots // 2, second=slots - slots // 2))
    return str(path)


def settings(folder: Path, slots: int, **changes: Any) -> SearchSettings:
    """A few steps on 75 images."""
    fields: dict[str, Any] = {
        "device": FAST,
        "max_latency_ms": 1e9,
        "space": space_file(folder, slots),
        "train_images": 75,
        "train_size": 32,
        "schedule": {"warmup_epochs": 1, "search_epochs": 2, "retrain_epochs": 0, "architecture_every": 1},
        "recipe": {"batch_size": 16},
    }
    return SearchSettings.model_validate({**fields, **changes})


def random_limits(free: Problem, kind: str, share: float) -> dict[str, Any]:
    """Settings of limits at a share of every feasible range, of one device, of two, or of a device and a size."""
    # rounding may not push a limit below the minimum
    first, second, parameters = (
        max(low + share * (high - low), low * (1 + 1e-12))
        for low, high in (limit.costs.range for limit in free.limits)
    )
    others: dict[str, dict[str, Any]] = {
        "one device": {},
        "two devices": {"also": (LatencyLimit(device=VPU, max_latency_ms=second),)},
        "device and size": {"max_parameters": int(np.ceil(parameters))},
    }
    return {"max_latency_ms": first, **others[kind]}


def searched(chosen: SearchSettings, path: Path) -> tuple[SearchResult, list[dict[str, Any]]]:
    """The result of a whole search and its architecture steps."""
    work = loop.prepare(chosen)
    with RunFolder.create(path, chosen.model_dump(mode="json")) as folder:
        result = loop.search(work, folder, lambda event: None, StopFlag())
        events = folder.journal.read()
    return result, [event for event in events if event["event"] == "ArchitectureStep"]


def hold(count: int, folder: Path) -> int:
    """``count`` searches; prints what came out and returns how many broke a limit."""
    generator = random.Random(0)
    used: dict[str, list[float]] = {}
    broken = 0
    for number in range(count):
        slots, kind = generator.randint(2, 6), ("one device", "two devices", "device and size")[number % 3]
        tight = number % 5 == 0
        share = generator.uniform(0, 1)
        free = pose(
            settings(
                folder, slots, also=(LatencyLimit(device=VPU, max_latency_ms=1e9),), max_parameters=10**12
            ),
            10,
        )
        low, high = free.limits[0].costs.range
        if tight:
            share *= 0.01 * low / (high - low)
        chosen = settings(folder, slots, seed=generator.randrange(10**6), **random_limits(free, kind, share))
        result, _ = searched(chosen, folder / f"run{number}")
        pairs = [(record.bound_ms, record.limit_ms) for record in result.latencies.values()]
        pairs += [(float(size.value), float(size.limit)) for size in result.sizes.values()]
        broken += any(value > limit for value, limit in pairs)
        used.setdefault("within 1 % of the minimum" if tight else kind, []).append(
            max(value / limit for value, limit in pairs)
        )
        print(f"\r{number + 1}/{count}, {broken} above a limit", end="", file=sys.stderr, flush=True)
    print(f"{count} searches, {broken} above a limit", file=sys.stderr)
    print("| limits | searches | share of the closest limit used: median | largest |\n|---|---|---|---|")
    for kind, shares in used.items():
        print(f"| {kind} | {len(shares)} | {median(shares):.4f} | {max(shares):.6f} |")
    print(f"{broken} of {count} searches exceed a limit")
    return broken


def settle(folder: Path, strategy: str, epochs: int, plot: Path | None) -> None:
    """Searches under limits across the range of a space of 16 slots; prints where E[ms] and argmax end up."""
    free = pose(settings(folder, SETTLED_SLOTS), 10).limits[0]
    low, high = free.costs.range
    schedule = {"warmup_epochs": 4, "search_epochs": epochs, "retrain_epochs": 0, "architecture_every": 1}
    figure = Figure(figsize=(3.2 * len(SETTLED_AT), 4.4), layout="constrained")
    axes = figure.subplots(2, len(SETTLED_AT), sharex=True, squeeze=False)
    print(
        "| limit, share of the range | argmax / limit, last quarter | E / limit | multiplier | answer / limit |"
    )
    print("|---|---|---|---|---|")
    for column, share in enumerate(SETTLED_AT):
        limit_ms = low + share * (high - low)
        chosen = settings(
            folder,
            SETTLED_SLOTS,
            max_latency_ms=limit_ms,
            schedule=schedule,
            strategy=strategy,
            train_images=320,
        )
        result, steps = searched(chosen, folder / f"settle{column}")
        last = steps[-len(steps) // 4 :]
        argmax, expected = ([step[key] / limit_ms for step in last] for key in ("argmax_ms", "expected_ms"))
        print(
            f"| {share:g} | {fmean(argmax):.3f} | {fmean(expected):.3f} | {last[-1]['multiplier']:.2f} | "
            f"{result.latency_ms / limit_ms:.3f} |"
        )
        x = [step["step"] for step in steps]
        upper, lower = axes[:, column]
        for key, label in (("argmax_ms", "most probable"), ("expected_ms", "E")):
            upper.plot(x, [step[key] / limit_ms for step in steps], label=label, linewidth=1)
        upper.axhline(1, color="0.4", linestyle="--", linewidth=0.9)
        upper.set(title=f"limit at {share:.0%} of the range", ylim=(0, 2.5))
        lower.plot(x, [step["multiplier"] for step in steps], color="C2", linewidth=1)
        lower.set(xlabel="weight step", ylim=(0, None))
    axes[0][0].set_ylabel("latency / limit")
    axes[1][0].set_ylabel("multiplier")
    axes[0][0].legend(frameon=False)
    if plot:
        figure.savefig(plot, dpi=120, metadata={"Software": None})


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--settle", action="store_true")
    parser.add_argument("--strategy", default="proxyless")
    parser.add_argument("--epochs", type=int, default=12, help="of the searches that settle")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        if arguments.settle:
            settle(Path(folder), arguments.strategy, arguments.epochs, arguments.plot)
        elif hold(arguments.searches, Path(folder)):
            sys.exit(1)


if __name__ == "__main__":
    main()
