"""Which searches are compared: every strategy with the same budget of training, under the limits of a truth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.ground_truth.plan import Truth, limit_points
from benchmarks.ground_truth.table import Key
from quadnas.search.settings import Schedule
from quadnas.search.strategies.swap import PROBED_IMAGES, PROBED_SLOTS

FORWARD = 1 / 3
"""Of a path step: a pass forward without one backward."""


@dataclass(frozen=True)
class Rival:
    """A strategy's supernet, and the path steps that it pays for: ``paths`` at every weight step.

    The supernet is ``shared`` by all limits if neither its weights nor what the choice goes by depend on a limit;
    else every limit has its ``own``. ``probe``: further path steps at a weight step once warmed up; ``update``:
    those of an architecture step.
    """

    supernet: Literal["shared", "own", "none"]
    paths: int = 1
    probe: float = 0.0
    update: float = 0.0

    def schedule(self, budget: Schedule) -> Schedule:
        """So few weight steps that their paths are as many as the budget has weight steps."""
        return budget.model_copy(
            update={
                "warmup_epochs": budget.warmup_epochs // self.paths,
                "search_epochs": max(1, budget.search_epochs // self.paths),
            }
        )


RIVALS = {
    "swap": Rival("shared", probe=PROBED_SLOTS * PROBED_IMAGES * FORWARD),
    "proxyless": Rival("own", update=1 + FORWARD),
    "evolution": Rival("shared", paths=4),
    "random": Rival("shared"),
    "largest": Rival("none"),
}
BUDGET = Schedule(warmup_epochs=4, search_epochs=8, retrain_epochs=0)


@dataclass(frozen=True)
class Search:
    """One supernet, or none, that answers under limits ``points``: (device, share of its range)."""

    strategy: str
    seed: int
    points: tuple[tuple[str, float], ...]
    ranks: bool

    @property
    def key(self) -> Key:
        """That of its row."""
        return self.strategy, self.seed, *self.points[0]


def searches(truth: Truth, strategies: Sequence[str], seeds: int) -> Iterator[Search]:
    """Seed by seed; a search without a supernet has nothing that a seed could change.

    Every supernet ranks the networks of the truth, of those under one limit that with the middle one.
    """
    points = limit_points(truth)
    middle = points[len(truth.limits) // 2]
    for seed in range(seeds):
        for strategy in strategies:
            supernet = RIVALS[strategy].supernet
            if supernet == "own":
                yield from (Search(strategy, seed, (point,), point == middle) for point in points)
            elif supernet == "shared" or seed == 0:
                yield Search(strategy, seed, tuple(points), supernet == "shared")
