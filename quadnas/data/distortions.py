"""RandAugment and colour jitter on single images of bytes, by Pillow."""

from collections.abc import Callable
from random import Random
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from quadnas.data.augmentation import RandAugment
from quadnas.data.draws import ImageDraws

Pixels: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]"
Fill: TypeAlias = tuple[int, int, int]
"""A colour for what comes in from beyond the edge; of a grey image the first value."""
Operation: TypeAlias = Callable[[Image.Image, float, Fill], Image.Image]

LEAVE_OUT = 0.5
"""Probability with which a drawn operation is not applied: timm's, which the published recipes train with."""


def _enhancer(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, level, _: kind(image).enhance(max(0.1, 1 + 0.9 * level))


def _affine(a: float, b: float, c: float, d: float, e: float, f: float) -> Operation:
    """The pixel at (x, y) comes from (ax + by + c, dx + ey + f), where c and f count in sides of the image."""

    def apply(image: Image.Image, level: float, fill: Fill) -> Image.Image:
        matrix = (1 + a * level, b * level, c * level * image.width,
                  d * level, 1 + e * level, f * level * image.height)  # fmt: skip
        kind, filter_ = Image.Transform.AFFINE, Image.Resampling.BICUBIC
        return image.transform(image.size, kind, matrix, filter_, fillcolor=_of(image, fill))

    return apply


def _rotate(image: Image.Image, level: float, fill: Fill) -> Image.Image:
    return image.rotate(30 * level, Image.Resampling.BICUBIC, fillcolor=_of(image, fill))


def _of(image: Image.Image, fill: Fill) -> Fill | int:
    return fill if image.mode == "RGB" else fill[0]


def _solarize_add(image: Image.Image, level: float, _: Fill) -> Image.Image:
    added = int(110 * abs(level))
    table = [min(255, value + added) if value < 128 else value for value in range(256)]
    return image.point(table * len(image.getbands()))


# By the sign-carrying level from -1 to 1; what has one direction only takes its size. At 0 nothing changes but
# by the three without a level and by posterize, which keeps four bits: the ranges are timm's "increasing" ones,
# but for the last bit, without which the image would be black.
OPERATIONS: dict[str, Operation] = {
    "auto_contrast": lambda image, *_: ImageOps.autocontrast(image),
    "equalize": lambda image, *_: ImageOps.equalize(image),
    "invert": lambda image, *_: ImageOps.invert(image),
    "posterize": lambda image, level, _: ImageOps.posterize(image, max(1, 4 - int(4 * abs(level)))),
    "solarize": lambda image, level, _: ImageOps.solarize(image, 256 - int(256 * abs(level))),
    "solarize_add": _solarize_add,
    "color": _enhancer(ImageEnhance.Color),
    "contrast": _enhancer(ImageEnhance.Contrast),
    "brightness": _enhancer(ImageEnhance.Brightness),
    "sharpness": _enhancer(ImageEnhance.Sharpness),
    "rotate": _rotate,
    "shear_x": _affine(0, 0.3, 0, 0, 0, 0),
    "shear_y": _affine(0, 0, 0, 0.3, 0, 0),
    "translate_x": _affine(0, 0, 0.45, 0, 0, 0),
    "translate_y": _affine(0, 0, 0, 0, 0, 0.45),
}


def finished(image: Image.Image, draws: ImageDraws, *, flip: bool = True) -> Pixels:
    """Mirror half of the images, where settings and ``flip`` allow, distort them, and return (H, W, channels)."""
    augmentation, rng, fill = draws
    if flip and augmentation.flip and rng.random() < 0.5:
        image = ImageOps.mirror(image)
    if augmentation.rand_augment:
        image = _rand_augmented(image, augmentation.rand_augment, rng, fill)
    elif augmentation.color_jitter:
        image = _jittered(image, augmentation.color_jitter, rng)
    return np.atleast_3d(np.asarray(image))


def _rand_augmented(image: Image.Image, settings: RandAugment, rng: Random, fill: Fill) -> Image.Image:
    for name in rng.choices(tuple(OPERATIONS), k=settings.operations):
        magnitude = min(10.0, max(0.0, rng.gauss(settings.magnitude, settings.magnitude_std)))
        sign = rng.choice((-1, 1))
        if rng.random() >= LEAVE_OUT:
            image = OPERATIONS[name](image, sign * magnitude / 10, fill)
    return image


def _jittered(image: Image.Image, most: float, rng: Random) -> Image.Image:
    kinds = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    rng.shuffle(kinds)
    for kind in kinds:
        image = kind(image).enhance(rng.uniform(1 - most, 1 + most))
    return image
