"""A split of image files, decoded by Pillow in threads (it works outside Python's interpreter lock)."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Self

import numpy as np
import torch
from PIL import Image

from quadnas.data.augment import to_network_input
from quadnas.data.base import Batch, Split
from quadnas.data.crops import Box, centre_box, random_box, shifted
from quadnas.data.distortions import Pixels, finished
from quadnas.data.draws import Draws, ImageDraws
from quadnas.errors import DataError

# Formats whose decoders run inside the process: Pillow would start Ghostscript for EPS.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def _threads() -> int:
    """As many as torch computes with, so that processes side by side share the cores in one way.

    torchrun leaves torch one thread for each of its processes, which would starve a GPU: they share all cores.
    """
    processes = os.environ.get("LOCAL_WORLD_SIZE")
    return torch.get_num_threads() if processes is None else max(1, (os.cpu_count() or 1) // int(processes))


@dataclass(frozen=True, eq=False)
class FileSplit(Split):
    """``paths`` holds one image file per label; at most ``lookahead`` + 1 batches are in memory.

    ``workers`` threads decode, by default as many as torch has for this process when the split is made.
    Resizing is bicubic, and evaluation keeps the centred 7/8 (224 of 256 pixels), as the published ImageNet
    recipes have it.
    """

    paths: tuple[str, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = field(default_factory=_threads)

    lookahead = 2

    def batch(self, indices: torch.Tensor, *, size: int, draws: Draws | None) -> Batch:
        """See ``Split.batch``; every image has a stream of numbers of its own, whichever thread reads it."""
        chosen = [self.paths[index] for index in indices.tolist()]
        each = draws.images(self.normalization) if draws else repeat(None)
        with ThreadPoolExecutor(self.workers) as pool:
            pixels = np.stack(list(pool.map(read_image, chosen, repeat(size), each)))
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device)
        return Batch(to_network_input(images, size, self.normalization), self.labels[indices].to(self.device))

    def subset(self, indices: torch.Tensor) -> Self:
        """See ``Split.subset``."""
        paths = tuple(self.paths[index] for index in indices.tolist())
        return replace(self, labels=self.labels[indices], paths=paths)

    def to(self, device: torch.device) -> Self:
        """See ``Split.to``."""
        return replace(self, device=device)


def read_image(path: str, size: int, draws: ImageDraws | None) -> Pixels:
    """Decode one image as (size, size, 3) RGB bytes; transparency is dropped.

    ``draws`` None takes the centre. Raises DataError naming the file if it is no complete image or larger than
    Pillow's decompression guard.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise DataError(f"{image.width}x{image.height} pixels are above the limit for one image")
            if draws and draws.augmentation.crops in ("auto", "resized"):
                return finished(_resized(image, random_box(*image.size, draws), size), draws)
            centre = _resized(image, centre_box(*image.size), size)
            if draws and draws.augmentation.crops == "shift":
                centre = shifted(centre, draws.rng)
            return finished(centre, draws) if draws else np.asarray(centre)
    except Exception as error:  # a decoder meets damage with nearly any exception
        raise DataError(f"cannot decode the image {path}: {error}; repair or remove it") from None


def _resized(image: Image.Image, box: Box, size: int) -> Image.Image:
    width, height = image.size
    # JPEG decodes large images at 1/2, 1/4 or 1/8 for less; twice the needed pixels remain for the filter.
    zoom_w, zoom_h = 2 * size / (box[2] - box[0]), 2 * size / (box[3] - box[1])
    image.draft(image.mode, (math.ceil(width * zoom_w), math.ceil(height * zoom_h)))
    scale_w, scale_h = image.width / width, image.height / height
    scaled = (box[0] * scale_w, box[1] * scale_h, box[2] * scale_w, box[3] * scale_h)
    return _rgb(image).resize((size, size), Image.Resampling.BICUBIC, box=scaled)


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
