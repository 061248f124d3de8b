"""A split whose images all lie in memory as bytes: small data sets, batched without a loop over images."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from PIL import Image

from quadnas.data.augment import random_crops, to_network_input
from quadnas.data.base import Batch, Split
from quadnas.data.crops import random_box
from quadnas.data.distortions import Pixels, finished
from quadnas.data.draws import Draws, ImageDraws


@dataclass(frozen=True, eq=False)
class MemorySplit(Split):
    """``images`` is (N, 1 or 3, H, W) uint8 at its native size; ``flip``: mirroring keeps the class."""

    images: torch.Tensor
    flip: bool

    def batch(self, indices: torch.Tensor, *, size: int, draws: Draws | None) -> Batch:
        """See ``Split.batch``; all but resized crops happens at the native size.

        Only resized crops and distortions go through Pillow, image by image.
        """
        device = self.images.device
        images = self.images[indices.to(device)]
        if draws is not None:
            augmentation = draws.augmentation
            shift, flip = augmentation.crops in ("auto", "shift"), augmentation.flip and self.flip
            by_pillow = augmentation.distorts or augmentation.crops == "resized"
            if augmentation.crops != "resized" and (shift or flip):
                images = random_crops(images, draws, shift=shift, flip=flip)
            if by_pillow:
                planes = images.permute(0, 2, 3, 1).squeeze(-1).cpu().numpy()
                each = draws.images(self.normalization)
                pixels = [self._changed(*one, size) for one in zip(planes, each, strict=True)]
                images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).to(device)
        return Batch(to_network_input(images, size, self.normalization), self.labels[indices].to(device))

    def _changed(self, pixels: Pixels, draws: ImageDraws, size: int) -> Pixels:
        """Bytes (H, W) or (H, W, 3) as (H, W, channels), cropped and distorted by Pillow."""
        image = Image.fromarray(np.ascontiguousarray(pixels))
        resized = draws.augmentation.crops == "resized"
        if resized:
            box = random_box(*image.size, draws)
            image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
        return finished(image, draws, flip=resized and self.flip)

    def subset(self, indices: torch.Tensor) -> Self:
        """See ``Split.subset``; copies the images."""
        return replace(self, labels=self.labels[indices], images=self.images[indices.to(self.images.device)])

    def to(self, device: torch.device) -> Self:
        """See ``Split.to``; the images move there."""
        return replace(self, images=self.images.to(device))
