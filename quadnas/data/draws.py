"""Random numbers of a batch that do not depend on how the batch is divided, and how it is divided."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import torch

from quadnas.data.augmentation import Augmentation
from quadnas.data.normalization import Normalization
from quadnas.data.order import stable_seed
from quadnas.errors import ConfigError


class Shard(NamedTuple):
    """One of ``world`` equal processes; each loads its part, and the parts in order of ``rank`` are the whole."""

    rank: int = 0
    world: int = 1

    def of_batch(self, count: int, *, pairs: bool) -> range:
        """The positions of a training batch of ``count`` images that this process takes.

        Raises ConfigError unless every process gets as many, and whole pairs of neighbours where ``pairs``.
        """
        unit = self.world * (2 if pairs and self.world > 1 else 1)
        if count % unit:
            raise ConfigError(
                f"a batch of {count} images cannot be divided among {self.world} processes; the batch size must "
                f"be a multiple of {unit}" + (", since mixup and cutmix mix neighbours" if pairs else "")
            )
        share = count // self.world
        return range(self.rank * share, (self.rank + 1) * share)

    def of_split(self, count: int) -> range:
        """The images of a split of ``count`` that this process evaluates; parts differ by one at most."""
        return range(self.rank * count // self.world, (self.rank + 1) * count // self.world)


WHOLE = Shard()


class ImageDraws(NamedTuple):
    """The random numbers for one image; ``fill`` is the mean colour in bytes, for what lies beyond the edge."""

    augmentation: Augmentation
    rng: Random
    fill: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Draws:
    """The random numbers for the images at ``positions`` of a batch of ``count``.

    They are a function of ``seed`` and the position in the whole batch, whoever asks.
    """

    augmentation: Augmentation
    seed: int
    count: int
    positions: range

    def generator(self) -> torch.Generator:
        """For numbers that are drawn for the whole batch at once; on the CPU, whatever the device."""
        return torch.Generator().manual_seed(self.seed)

    def per_image(self, purpose: str) -> list[Random]:
        """A stream of numbers for each of the images."""
        return [Random(stable_seed(purpose, self.seed, position)) for position in self.positions]  # noqa: S311

    def images(self, normalization: Normalization) -> Iterator[ImageDraws]:
        """What single images need for their crops, mirroring and distortions."""
        red, green, blue = (min(255, max(0, round(255 * value))) for value in normalization.mean)
        return (ImageDraws(self.augmentation, rng, (red, green, blue)) for rng in self.per_image("image"))

    def per_batch(self, purpose: str) -> Random:
        """A stream of numbers that all parts of the batch share."""
        return Random(stable_seed(purpose, self.seed))  # noqa: S311
