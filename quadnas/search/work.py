"""What a search works on, loaded and checked before anything trains."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from quadnas.data.base import DataSet, load_data
from quadnas.network import Network, require_size
from quadnas.search.problem import Problem, pose
from quadnas.search.settings import SearchSettings
from quadnas.search.strategy import check_strategy
from quadnas.training.device import arithmetic, compute_device
from quadnas.training.distributed import ALONE, Ranks


@dataclass(frozen=True)
class Work:
    """What a search works on, loaded and checked before any training; ``ranks`` share its work."""

    problem: Problem
    data: DataSet
    train_size: int
    device: torch.device
    ranks: Ranks = ALONE

    @property
    def inputs(self) -> dict[str, object]:
        """What the settings only name: a run goes on with nothing else."""
        problem = self.problem
        return {
            "space": problem.space,
            "device": tuple(model.card for model in problem.models),
            "scale from your measurements of the device": tuple(model.scale for model in problem.models),
            "data": self.data.identity,
            **arithmetic(self.device),
        }


def prepare(settings: SearchSettings, ranks: Ranks = ALONE) -> Work:
    """Load data, space and device and check that the limit can be met; raises LimitError, ConfigError ..."""
    data = load_data(settings.data, limit=settings.train_images)
    problem = pose(settings, len(data.classes))
    check_strategy(settings)
    train_size = settings.train_size or data.default_train_size
    require_size(problem.space.layers([0] * len(problem.space.slots), problem.classes), train_size)
    device = compute_device()
    _check_ranks(problem, data, ranks)
    return Work(problem, data.to(device), train_size, device, ranks)


def notices(problem: Problem) -> Iterator[str]:
    """What the user should know before anything trains."""
    if problem.unlimited:
        limits = " and ".join(
            f"within {limit.text(limit.value)} (at most {limit.text(limit.costs.range[1])})"
            for limit in problem.limits
        )
        yield (
            f"every network of {problem.space.name} is {limits}: the limit does not bind, the search goes on "
            "without it"
        )
    if problem.unpriced:
        devices = " or ".join(model.card.device for model in problem.models)
        yield (
            f"{devices} has no price for some operators of {', '.join(problem.unpriced)}: "
            "the search leaves them out"
        )


def _check_ranks(problem: Problem, data: DataSet, ranks: Ranks) -> None:
    """Raise ConfigError or MachineError if several processes cannot share the batches or train the candidates."""
    recipe, slots = problem.settings.recipe, problem.space.slots
    mixes = recipe.augmentation.mixes
    for split, pairs in ((data.train, mixes), (data.training, mixes), (data.held_out, False)):
        ranks.shard.of_batch(min(recipe.batch_size, len(split)), pairs=pairs)
    for number in range(max(len(slot.candidates) for slot in slots)):
        choices = [min(number, len(slot.candidates) - 1) for slot in slots]
        with torch.device("meta"):
            ranks.check(Network(problem.space.layers(choices, problem.classes)))
