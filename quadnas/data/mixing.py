"""Augmentation of whole batches in network input space: random erasing, mixup, cutmix."""

import math
from random import Random
from typing import NamedTuple

import torch
import torch.nn.functional as F

from quadnas.data.base import Batch
from quadnas.data.draws import Draws

# Zhong et al. (2020), with the range of areas of timm's recipes.
LEAST_AREA, MOST_AREA, LEAST_ASPECT = 0.02, 1 / 3, 0.3
TRIES = 10


class Patch(NamedTuple):
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right`` of an image, the ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """In pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


def erase(images: torch.Tensor, draws: Draws) -> None:
    """Overwrite, with the set probability, a rectangle of each image (B, C, S, S) by standard normal noise."""
    probability = draws.augmentation.random_erasing
    if not probability:
        return
    for image, rng in zip(images, draws.per_image("erase"), strict=True):
        if rng.random() < probability and (patch := erasing_patch(image.shape[-1], rng)):
            noise = torch.Generator().manual_seed(rng.getrandbits(63))
            part = image[:, patch.top : patch.bottom, patch.left : patch.right]
            part.copy_(torch.randn(part.shape, generator=noise))


def erasing_patch(side: int, rng: Random) -> Patch | None:
    """A rectangle of 2 % to 33 % of ``side`` x ``side`` pixels, its aspect log-uniform in 0.3 to 1 / 0.3.

    Sides are rounded to whole pixels; one that does not fit is drawn anew, ten times at most: then None.
    """
    for _ in range(TRIES):
        area = side * side * rng.uniform(LEAST_AREA, MOST_AREA)
        aspect = math.exp(rng.uniform(math.log(LEAST_ASPECT), -math.log(LEAST_ASPECT)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < height < side and 0 < width < side:
            top, left = rng.randint(0, side - height), rng.randint(0, side - width)
            return Patch(top, top + height, left, left + width)
    return None


def mix(batch: Batch, class_count: int, draws: Draws) -> Batch:
    """Mix each image with its neighbour in the batch (0 with 1, 2 with 3 ...) and turn labels into shares.

    One share for the whole batch is drawn from Beta(alpha, alpha): mixup adds the two images in these shares,
    cutmix takes a rectangle from the neighbour, and the share becomes the exact part of the area that
    remains. An odd last image stays. Returns labels (B, ``class_count``) float32; the images change in place.
    Neighbours take the place of timm's mirrored order (i with B - 1 - i), which means the same in shuffled
    batches, so that a contiguous part of the batch holds its partners.
    """
    augmentation, rng = draws.augmentation, draws.per_batch("mix")
    if not augmentation.mixes:
        return batch
    images, shares = batch.images, F.one_hot(batch.labels, class_count).float()
    if rng.random() >= augmentation.mix_probability:
        return Batch(images, shares)
    by_cutmix = augmentation.cutmix_alpha > 0 and (
        augmentation.mixup_alpha == 0 or rng.random() < augmentation.switch_probability
    )
    alpha = augmentation.cutmix_alpha if by_cutmix else augmentation.mixup_alpha
    share = rng.betavariate(alpha, alpha)
    if by_cutmix:
        side = images.shape[-1]
        patch = cutmix_patch(side, share, rng)
        _blend_neighbours(images[:, :, patch.top : patch.bottom, patch.left : patch.right], 0.0)
        share = 1 - patch.area / side**2
    else:
        _blend_neighbours(images, share)
    partner = (torch.arange(len(shares), device=shares.device) ^ 1).clamp_(max=len(shares) - 1)
    return Batch(images, shares * share + shares[partner] * (1 - share))


def _blend_neighbours(images: torch.Tensor, share: float) -> None:
    """Leave each image (B, ...) its ``share`` and take the rest from the neighbour, in place."""
    last = len(images) // 2 * 2
    even, odd = images[0:last:2], images[1:last:2]
    blended = torch.lerp(odd, even, share)
    odd.lerp_(even, 1 - share)
    even.copy_(blended)


def cutmix_patch(side: int, share: float, rng: Random) -> Patch:
    """A square of 1 - ``share`` of the area around a uniform pixel, cut to the image of ``side`` pixels."""
    length = int(side * math.sqrt(1 - share))
    top, left = (rng.randrange(side) - length // 2 for _ in range(2))
    return Patch(max(0, top), min(side, top + length), max(0, left), min(side, left + length))
