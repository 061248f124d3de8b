"""A split whose images all lie in memory as bytes: small data sets, batched without a loop over images."""

from dataclasses import dataclass, replace
from typing import Self

import torch

from quadnas.data.augment import random_crops, to_network_input
from quadnas.data.base import Batch, Split


@dataclass(frozen=True, eq=False)
class MemorySplit(Split):
    """``images`` is (N, 1 or 3, H, W) uint8 at its native size; ``flip``: mirroring keeps the class."""

    images: torch.Tensor
    flip: bool

    def batch(self, indices: torch.Tensor, *, size: int, generator: torch.Generator | None) -> Batch:
        """See ``Split.batch``; the augmentation is ``random_crops`` at the native size."""
        device = self.images.device
        images = self.images[indices.to(device)]
        if generator is not None:
            images = random_crops(images, flip=self.flip, generator=generator)
        return Batch(to_network_input(images, size, self.normalization), self.labels[indices].to(device))

    def subset(self, indices: torch.Tensor) -> Self:
        """See ``Split.subset``; copies the images."""
        return replace(self, labels=self.labels[indices], images=self.images[indices.to(self.images.device)])

    def to(self, device: torch.device) -> Self:
        """See ``Split.to``; the images move there."""
        return replace(self, images=self.images.to(device))
