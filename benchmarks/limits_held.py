"""Do searches hold their limits, and do E[ms] and argmax settle before the knapsack has to cut?

``python -m benchmarks.limits_held`` runs 200 whole searches of tiny spaces (two to six slots, a few steps, no
retraining) under random limits across the feasible range and random seeds: under one device, under two, under a
device and a size; a fifth of them within 1 % above the minimum. It prints how many exceed a limit (none may) and
how close they come to the closest one. ``--settle`` searches 16 slots instead, for longer, under limits across the
range and ``--seeds`` seeds, and prints where E[ms] and the most probable network are in the last quarter of the
steps, before anything is derived: mean over the seeds and, in brackets, the one farthest from the limit. A
multiplier moves the most probable network from one vertex of the convex hull of cost and score to the next; the
nearest vertex says how close it can come at all. ``--plot FILE`` draws the first seed.
"""

import argparse
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from quadnas.latency.table import CostTable
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.search import loop
from quadnas.search.problem import Problem, pose
from quadnas.search.result import SearchResult
from quadnas.search.settings import LatencyLimit, SearchSettings
from quadnas.search.work import prepare

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
    work = prepare(chosen)
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


@dataclass
class Settled:
    """A search's steps; over its limit: E and argmax in the last quarter, the nearest vertex, the answer."""

    steps: list[dict[str, Any]]
    limit_ms: float
    nearest: float
    answer: float

    def __post_init__(self) -> None:
        last = self.steps[-len(self.steps) // 4 :]
        self.expected = fmean(step["expected_ms"] for step in last) / self.limit_ms
        self.argmax = fmean(step["argmax_ms"] for step in last) / self.limit_ms


def vertices(scores: NDArray[np.float64], table: CostTable) -> list[float]:
    """Costs of the networks that are best by scores - m cost for some m >= 0."""
    costs = np.array(table.rows)
    rises = costs[:, :, None] - costs[:, None, :]
    slopes = (scores[:, :, None] - scores[:, None, :])[rises > 0] / rises[rises > 0]
    turns = np.unique(np.append(slopes, 0.0).clip(0))
    between = [*(turns[:-1] + turns[1:]) / 2, turns[-1] + 1]
    return [table.of((scores - m * costs).argmax(1).tolist()) for m in between]


def settled(chosen: SearchSettings, table: CostTable, path: Path) -> Settled:
    """A search, and the vertex nearest to the limit by the scores that it ended with."""
    result, steps = searched(chosen, path)
    last, limit_ms = steps[-1], chosen.max_latency_ms
    scores = np.array(last["gains"] or np.log(np.array(last["probabilities"]) + 1e-5))
    if not last["gains"]:
        scores += last["multiplier"] * np.array(table.rows) / limit_ms
    nearest = min((cost / limit_ms for cost in vertices(scores, table)), key=lambda share: abs(share - 1))
    return Settled(steps, limit_ms, nearest, result.latency_ms / limit_ms)


def settle(folder: Path, strategy: str, seeds: int, epochs: int, plot: Path | None) -> None:
    """Searches under limits across the range of a space of 16 slots; prints where E[ms] and argmax end up."""
    table = pose(settings(folder, SETTLED_SLOTS), 10).limits[0].costs
    low, high = table.range
    schedule = {"warmup_epochs": 4, "search_epochs": epochs, "retrain_epochs": 0, "architecture_every": 1}
    runs: dict[float, list[Settled]] = {}
    print(
        "| limit, share of the range | E / limit | argmax / limit | nearest vertex / limit | answer / limit |"
    )
    print("|---|---|---|---|---|")
    for share in SETTLED_AT:
        chosen = settings(
            folder, SETTLED_SLOTS, max_latency_ms=low + share * (high - low),
            schedule=schedule, strategy=strategy, train_images=320,
        )  # fmt: skip
        runs[share] = [
            settled(chosen.model_copy(update={"seed": seed}), table, folder / f"settle{share}-{seed}")
            for seed in range(seeds)
        ]
        cells = [
            _mean_and_worst([getattr(run, name) for run in runs[share]])
            for name in ("expected", "argmax", "nearest", "answer")
        ]
        print(f"| {share:g} | {' | '.join(cells)} |", flush=True)
    if plot:
        drawn({share: found[0] for share, found in runs.items()}).savefig(
            plot, dpi=120, metadata={"Software": None}
        )


def _mean_and_worst(shares: Sequence[float]) -> str:
    return f"{fmean(shares):.3f} ({max(shares, key=lambda share: abs(share - 1)):.3f})"


def drawn(runs: Mapping[float, Settled]) -> Figure:
    """E and argmax over the limit, and the multiplier, step by step, for every share of the range."""
    figure = Figure(figsize=(3.2 * len(runs), 4.4), layout="constrained")
    axes = figure.subplots(2, len(runs), sharex=True, squeeze=False)
    for (share, run), upper, lower in zip(runs.items(), axes[0], axes[1], strict=True):
        x = [step["step"] for step in run.steps]
        for key, label in (("argmax_ms", "most probable"), ("expected_ms", "E")):
            upper.plot(x, [step[key] / run.limit_ms for step in run.steps], label=label, linewidth=1)
        upper.axhline(1, color="0.4", linestyle="--", linewidth=0.9)
        upper.set(title=f"limit at {share:.0%} of the range", ylim=(0, 2))
        lower.plot(x, [step["multiplier"] for step in run.steps], color="C2", linewidth=1)
        lower.set(xlabel="weight step", ylim=(0, None))
    axes[0][0].set_ylabel("latency / limit")
    axes[1][0].set_ylabel("multiplier")
    axes[0][0].legend(frameon=False)
    return figure


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--settle", action="store_true")
    parser.add_argument("--strategy", default="swap", help="of the searches that settle")
    parser.add_argument("--seeds", type=int, default=5, help="of the searches that settle")
    parser.add_argument("--epochs", type=int, default=10, help="of the searches that settle")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        if arguments.settle:
            settle(Path(folder), arguments.strategy, arguments.seeds, arguments.epochs, arguments.plot)
        elif hold(arguments.searches, Path(folder)):
            sys.exit(1)


if __name__ == "__main__":
    main()
