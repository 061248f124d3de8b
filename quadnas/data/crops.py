"""Which part of an image is looked at: boxes (left, top, right, bottom) in pixels, for Pillow's resize."""

import math
from random import Random
from typing import TypeAlias

from PIL import Image

from quadnas.data.draws import ImageDraws

Box: TypeAlias = tuple[float, float, float, float]

TRIES = 10
CENTRE_SHARE = 0.875
"""Evaluation keeps 224 of 256 pixels."""


def centre_box(width: int, height: int) -> Box:
    """The centred square of 7/8 of the shorter side."""
    side = CENTRE_SHARE * min(width, height)
    return _placed(width, height, side, side, 0.5, 0.5)


def random_box(width: int, height: int, draws: ImageDraws) -> Box:
    """A rectangle at a uniform place, area uniform in ``scale`` and aspect log-uniform in ``ratio``.

    One that does not fit is drawn anew; after ten of them it is the largest centred part whose aspect is in
    ``ratio``. Source: Szegedy et al. (2015), with the fallback that torchvision gave it.
    """
    augmentation, rng, _ = draws
    least, most = augmentation.ratio
    for _ in range(TRIES):
        area = width * height * rng.uniform(*augmentation.scale)
        aspect = math.exp(rng.uniform(math.log(least), math.log(most)))
        box_w, box_h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if box_w <= width and box_h <= height:
            return _placed(width, height, box_w, box_h, rng.random(), rng.random())
    aspect = min(most, max(least, width / height))
    return _placed(width, height, min(width, height * aspect), min(height, width / aspect), 0.5, 0.5)


def shifted(image: Image.Image, rng: Random) -> Image.Image:
    """Shift an image by up to an eighth of each side, black beyond the edge."""
    most = [max(1, round(side / 8)) for side in image.size]
    moved = Image.new(image.mode, image.size)
    moved.paste(image, (rng.randint(-most[0], most[0]), rng.randint(-most[1], most[1])))
    return moved


def _placed(width: int, height: int, box_w: float, box_h: float, across: float, down: float) -> Box:
    left, top = across * (width - box_w), down * (height - box_h)
    return left, top, min(width, left + box_w), min(height, top + box_h)
