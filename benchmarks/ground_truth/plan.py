"""Which networks of the space are trained with which seeds, and how: a pure function of the settings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from quadnas.config import Settings
from quadnas.data.base import DataSet
from quadnas.latency.measurements import load_corrected
from quadnas.latency.table import CostTable
from quadnas.search.limits import price_space
from quadnas.space.architecture import Architecture
from quadnas.space.search_space import SearchSpace, Slot
from quadnas.training.recipe import Recipe

Choices = tuple[int, ...]
DRAWS = 200
"""Architectures among which the one nearest to its place in the range is taken."""
FINAL_SEEDS = range(10, 20)
"""Of the trainings of finalists: none that helped to choose them."""
ANSWER_SEEDS = FINAL_SEEDS[:3]
"""Of the trainings of networks that searches chose: few, for there are many of them."""


class Truth(Settings):
    """A ground truth: ``networks`` of a space, ``repeated`` of them with ``seeds`` seeds, all trained alike.

    ``train_size`` is the side of the images in training, ``input_size`` the one that ``devices`` are predicted
    for. ``limits`` are shares of a device's range; ``finalists`` of every limit are trained with ten seeds more.
    """

    space: str
    data: str
    train_images: int
    train_size: int
    epochs: int
    recipe: Recipe
    devices: tuple[str, ...]
    input_size: int
    networks: int
    repeated: int
    seeds: int
    limits: tuple[float, ...]
    finalists: int

    def header(self, space: SearchSpace, data: DataSet, architectures: Sequence[Choices]) -> dict[str, Any]:
        """What trainings that stand in one table have in common; layers, data and plan as fingerprints.

        Of the recipe only what differs from its defaults: a setting that is added later changes no table.
        """
        return {
            **self.model_dump(mode="json", include=_TRAINING),
            "recipe": self.recipe.model_dump(mode="json", exclude_defaults=True),
            "space_sha256": _digest(_layers(space)),
            "data_sha256": _digest(data.identity),
            "plan_sha256": _digest(architectures),
        }


_TRAINING = {"space", "data", "train_images", "train_size", "epochs", "devices", "input_size"}


def _layers(space: SearchSpace) -> list[list[dict[str, Any]]]:
    """Every position's candidates as plain data."""
    choices = [p.candidates.values() if isinstance(p, Slot) else (p,) for p in (*space.positions, space.head)]
    return [[layer.model_dump(mode="json", exclude_defaults=True) for layer in layers] for layers in choices]


def _digest(value: object) -> str:
    return sha256(repr(value).encode()).hexdigest()


def limit_points(truth: Truth) -> list[tuple[str, float]]:
    """All limits on the first device, and the middle one on each of the others: device, share of its range."""
    first, *others = truth.devices
    middle = truth.limits[len(truth.limits) // 2]
    return [*((first, share) for share in truth.limits), *((device, middle) for device in others)]


@dataclass(frozen=True, slots=True)
class Training:
    """One training: candidate ``choices[s]`` in slot s, and the seed of its weights and batches."""

    choices: Choices
    seed: int


def network_of(space: SearchSpace, architecture: Sequence[int] | str) -> str:
    """The layers that compute something, as text: where an identity stands changes no number of a training."""
    choices = (
        space.choices(Architecture.parse(architecture)) if isinstance(architecture, str) else architecture
    )
    return str([layer for layer in space.layers(choices, classes=1) if layer.block != "identity"])


def latency_tables(truth: Truth, space: SearchSpace, classes: int) -> dict[str, CostTable]:
    """The prices of all candidates on every device of the truth."""
    return {
        device: price_space(space, load_corrected(device), classes, truth.input_size)
        for device in truth.devices
    }


def relative_costs(tables: Sequence[CostTable]) -> list[NDArray[np.float64]]:
    """Per slot its candidates' costs, averaged over devices.

    They sum up to 0 for the fastest network of the space and to 1 for the slowest.
    """
    spans = [high - low for low, high in (table.range for table in tables)]
    rows = zip(*(table.rows for table in tables), strict=True)
    return [
        np.mean([(np.array(ms) - min(ms)) / span for ms, span in zip(row, spans, strict=True)], axis=0)
        for row in rows
    ]


def stratified(costs: Sequence[NDArray[np.float64]], count: int, seed: int = 0) -> list[Choices]:
    """``count`` distinct architectures whose costs are spread evenly over the range, cheapest first.

    A uniform sample bunches in the middle of the range. Number i is meant to cost (i + 1/2) / count: of
    ``DRAWS`` architectures from the distribution of maximum entropy with that expected cost, every slot's
    probabilities being proportional to exp(-t cost), the nearest that is new is taken.
    """
    generator = np.random.default_rng(seed)
    found: dict[Choices, None] = {}
    for number in range(count):
        goal = (number + 0.5) / count
        tilted = _probabilities(costs, goal)
        drawn = np.stack([generator.choice(len(p), size=DRAWS, p=p) for p in tilted], axis=1)
        price = np.sum([row[drawn[:, s]] for s, row in enumerate(costs)], axis=0)
        distance = np.round(abs(price - goal), 9)  # equal costs stay equal whatever the order of their sums
        for place in np.argsort(distance, kind="stable"):
            choices: Choices = tuple(drawn[place].tolist())
            if choices not in found:
                found[choices] = None
                break
    return list(found)


def _probabilities(costs: Sequence[NDArray[np.float64]], goal: float) -> list[NDArray[np.float64]]:
    def tilted(tilt: float) -> list[NDArray[np.float64]]:
        weights = [np.exp(-tilt * (row - (row.min() if tilt > 0 else row.max()))) for row in costs]
        return [row / row.sum() for row in weights]

    def excess(tilt: float) -> float:
        return sum(float(p @ row) for p, row in zip(tilted(tilt), costs, strict=True)) - goal

    return tilted(float(brentq(excess, -1e5, 1e5)))


def plan(truth: Truth, architectures: Sequence[Choices]) -> Iterator[Training]:
    """All trainings but those of finalists, in an order of which every beginning is of use.

    ``architectures`` are ordered by cost. They come in ``repeated`` blocks, each of which spans the range of
    costs; behind a block, one of its networks, another part of the range each time, is trained with the
    other seeds.
    """
    order = np.random.default_rng(0).permutation(truth.repeated).tolist()
    for start in order:
        block = architectures[start :: truth.repeated]
        yield from (Training(choices, 0) for choices in block)
        again = block[start * len(block) // truth.repeated]
        yield from (Training(again, seed) for seed in range(1, truth.seeds))
