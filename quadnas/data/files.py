"""A split of image files, decoded by Pillow in threads (it works outside Python's interpreter lock)."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Self, TypeAlias

import numpy as np
import torch
from PIL import Image

from quadnas.data.augment import to_network_input
from quadnas.data.base import Batch, Split
from quadnas.errors import DataError

# Formats whose decoders run inside the process: Pillow would start Ghostscript for EPS.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Random resized crops as in Szegedy et al. (2015); evaluation keeps 224 of 256 pixels.
MIN_AREA, MAX_ASPECT = 0.08, 4 / 3
CENTRE_SHARE = 0.875

Pixels: TypeAlias = "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]"


@dataclass(frozen=True, eq=False)
class FileSplit(Split):
    """``paths`` holds one image file per label; at most ``lookahead`` + 1 batches are in memory."""

    paths: tuple[str, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)

    lookahead = 2

    def batch(self, indices: torch.Tensor, *, size: int, generator: torch.Generator | None) -> Batch:
        """See ``Split.batch``; the augmentation is a random resized crop and mirroring of half the images.

        All numbers are drawn before the threads start, so their count changes nothing.
        """
        draws = (
            repeat(None) if generator is None else torch.rand((len(indices), 5), generator=generator).tolist()
        )
        chosen = [self.paths[index] for index in indices.tolist()]
        with ThreadPoolExecutor(self.workers) as pool:
            pixels = np.stack(list(pool.map(read_image, chosen, repeat(size), draws)))
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device)
        return Batch(to_network_input(images, size, self.normalization), self.labels[indices].to(self.device))

    def subset(self, indices: torch.Tensor) -> Self:
        """See ``Split.subset``."""
        paths = tuple(self.paths[index] for index in indices.tolist())
        return replace(self, labels=self.labels[indices], paths=paths)

    def to(self, device: torch.device) -> Self:
        """See ``Split.to``."""
        return replace(self, device=device)


def read_image(path: str, size: int, draws: list[float] | None) -> Pixels:
    """Decode one image as (size, size, 3) RGB bytes; transparency is dropped.

    ``draws`` are the five numbers in [0, 1) of ``crop_box`` and of the mirroring; None takes the centre.
    Raises DataError naming the file if it is no complete image or larger than Pillow's decompression guard.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise DataError(f"{image.width}x{image.height} pixels are above the limit for one image")
            box = crop_box(image.width, image.height, draws)
            pixels = _resized(image, box, size)
    except Exception as error:  # a decoder meets damage with nearly any exception
        raise DataError(f"cannot decode the image {path}: {error}; repair or remove it") from None
    return pixels[:, ::-1] if draws is not None and draws[4] < 0.5 else pixels


def crop_box(width: int, height: int, draws: list[float] | None) -> tuple[float, float, float, float]:
    """The part (left, top, right, bottom) of an image to resize.

    Without ``draws``: the centred square of 7/8 of the shorter side. With them: a rectangle of 8 % to 100 %
    of the area and an aspect of 3/4 to 4/3 (log-uniform), cut to the image, at a uniform place.
    """
    if draws is None:
        box_w = box_h = CENTRE_SHARE * min(width, height)
        across = down = 0.5
    else:
        area = width * height * (MIN_AREA + (1 - MIN_AREA) * draws[0])
        aspect = MAX_ASPECT ** (2 * draws[1] - 1)
        box_w = min(width, math.sqrt(area * aspect))
        box_h = min(height, math.sqrt(area / aspect))
        across, down = draws[2], draws[3]
    left, top = across * (width - box_w), down * (height - box_h)
    return left, top, min(width, left + box_w), min(height, top + box_h)


def _resized(image: Image.Image, box: tuple[float, float, float, float], size: int) -> Pixels:
    width, height = image.size
    # JPEG decodes large images at 1/2, 1/4 or 1/8 for less; twice the needed pixels remain for the filter.
    zoom_w, zoom_h = 2 * size / (box[2] - box[0]), 2 * size / (box[3] - box[1])
    image.draft(image.mode, (math.ceil(width * zoom_w), math.ceil(height * zoom_h)))
    scale_w, scale_h = image.width / width, image.height / height
    scaled = (box[0] * scale_w, box[1] * scale_h, box[2] * scale_w, box[3] * scale_h)
    return np.asarray(_rgb(image).resize((size, size), Image.Resampling.BILINEAR, box=scaled))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise DataError(f"grey values from {values.min()} to {values.max()} are not 16-bit")
        image = Image.fromarray((values // 257).astype(np.uint8))
    elif image.mode == "F":
        raise DataError("floating-point images have no known range")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
