"""RandAugment's operations on a photograph against formulas, and how often each is drawn, and how strongly."""

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.ndimage import convolve
from scipy.stats import chisquare, kstest
from sklearn.datasets import load_sample_image

from quadnas.data.augmentation import Augmentation, RandAugment
from quadnas.data.distortions import OPERATIONS, finished
from quadnas.data.draws import ImageDraws

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
FILL = (11, 97, 203)
WITHOUT_LEVEL = ("auto_contrast", "equalize", "invert")
ACROSS, DOWN = ("rotate", "shear_x", "translate_x"), ("rotate", "shear_y", "translate_y")
BOTH_WAYS = {"color", "contrast", "brightness", "sharpness", *ACROSS, *DOWN}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Roofs in Beijing in dull colours, so that something is left to stretch."""
    whole = Image.fromarray(load_sample_image("china.jpg"))
    return whole.resize((320, 214)).point([10 + value * 200 // 255 for value in range(256)] * 3)


def applied(name: str, image: Image.Image, level: float) -> Bytes:
    return np.asarray(OPERATIONS[name](image, level, FILL))


def clipped(values: Floats) -> Floats:
    return np.minimum(np.maximum(values, 0), 255)


def stretched(x: Floats) -> Floats:
    low, high = x.min((0, 1)), x.max((0, 1))
    scaled: Floats = (x - low) * 255 / (high - low)
    return scaled


def equalized(x: Floats) -> Floats:
    """Each value becomes the share of pixels below it, on a scale that gives the brightest value 255."""
    out = np.empty_like(x)
    for channel in range(3):
        plane = x[..., channel]
        counts = np.bincount(plane.astype(int).ravel(), minlength=256)
        below = np.cumsum(counts) - counts
        out[..., channel] = (below * 255 / (plane.size - counts[counts > 0][-1]))[plane.astype(int)]
    return out


def grey(x: Floats) -> Floats:
    """ITU-R 601 luma."""
    weighted: Floats = x * [0.299, 0.587, 0.114]
    return np.add.reduce(weighted, axis=2, keepdims=True)


def smoothed(x: Floats) -> Floats:
    weights = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    return np.stack([convolve(x[..., channel], weights) for channel in range(3)], 2)


FORMULAS: list[tuple[str, float, Callable[[Floats], Floats], float]] = [
    ("auto_contrast", 0.9, stretched, 1),
    ("equalize", 0.9, equalized, 2),
    ("invert", 0.9, lambda x: 255 - x, 0),
    ("posterize", 0.0, lambda x: x // 16 * 16, 0),
    ("posterize", 0.5, lambda x: x // 64 * 64, 0),
    ("posterize", -0.9, lambda x: x // 128 * 128, 0),
    ("posterize", 1.0, lambda x: x // 128 * 128, 0),
    ("solarize", -0.5, lambda x: np.where(x < 128, x, 255 - x), 0),
    ("solarize", 0.9, lambda x: np.where(x < 26, x, 255 - x), 0),
    ("solarize_add", 0.5, lambda x: np.where(x < 128, clipped(x + 55), x), 0),
    ("solarize_add", -1.0, lambda x: np.where(x < 128, clipped(x + 110), x), 0),
    *[
        (name, level, lambda x, f=1 + 0.9 * level, base=base: base(x) + f * (x - base(x)), 2)
        for level in (-1.0, -0.4, 0.5, 1.0)
        for name, base in (
            ("brightness", np.zeros_like),
            ("contrast", lambda x: np.full_like(x, grey(x).mean())),
            ("color", grey),
        )
    ],
]


@pytest.mark.parametrize(("name", "level", "formula", "tolerance"), FORMULAS)
def test_an_operation_on_values_is_its_formula(
    photo: Image.Image, name: str, level: float, formula: Callable[[Floats], Floats], tolerance: float
) -> None:
    expected = clipped(formula(np.asarray(photo).astype(float)))
    found = applied(name, photo, level).astype(float)
    assert np.abs(found - expected).max() <= tolerance
    assert np.abs(found - np.asarray(photo)).mean() > 1, "it must change something"


@pytest.mark.parametrize("level", [-1.0, -0.4, 0.5, 1.0])
def test_sharpness_moves_away_from_or_towards_the_smoothed_image(photo: Image.Image, level: float) -> None:
    x = np.asarray(photo).astype(float)
    expected = clipped(smoothed(x) + (1 + 0.9 * level) * (x - smoothed(x)))
    inside = (slice(1, -1), slice(1, -1))  # Pillow leaves the edge unsmoothed
    assert np.abs(applied("sharpness", photo, level).astype(float) - expected)[inside].max() <= 2


def sources(name: str, level: float, x: Floats, y: Floats, width: int, height: int) -> tuple[Floats, Floats]:
    """Where the pixel centre (x, y) of the result comes from; (0, 0) is the corner of the image."""
    angle = np.radians(30 * level)
    dx, dy = x - width / 2, y - height / 2
    match name:
        case "rotate":  # counter-clockwise, where y points down
            return (
                width / 2 + np.cos(angle) * dx - np.sin(angle) * dy,
                height / 2 + np.sin(angle) * dx + np.cos(angle) * dy,
            )
        case "shear_x":
            return x + 0.3 * level * y, y
        case "shear_y":
            return x, y + 0.3 * level * x
        case "translate_x":
            return x + 0.45 * level * width, y
        case _:
            return x, y + 0.45 * level * height


def smooth(x: Floats, y: Floats) -> Floats:
    return 128 + 60 * np.sin(x / 9) * np.cos(y / 11) + x / 3 - y / 4


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
@pytest.mark.parametrize("level", [-1.0, -0.37, 0.5, 0.9])
def test_geometry_moves_every_pixel_to_where_the_formula_says(name: str, level: float) -> None:
    width, height = 90, 60
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    image = Image.fromarray(np.repeat(smooth(x, y).round()[..., None], 3, 2).astype(np.uint8))
    from_x, from_y = sources(name, level, x, y, width, height)
    found = applied(name, image, level).astype(float)
    edge = np.minimum(np.minimum(from_x, width - from_x), np.minimum(from_y, height - from_y))
    inside, outside = edge > 2, edge < -1
    assert (
        np.abs(found[..., 0] - smooth(from_x, from_y))[inside].max() <= 2.5
    )  # bicubic, and Pillow rounds down
    assert outside.any()
    assert (found[outside] == FILL).all()


@pytest.mark.parametrize(
    ("name", "mirror"),
    [(name, ImageOps.mirror) for name in ACROSS] + [(name, ImageOps.flip) for name in DOWN],
)
@pytest.mark.parametrize("level", [0.25, 0.9])
def test_the_sign_is_the_mirror_image(
    photo: Image.Image, name: str, mirror: Callable[[Image.Image], Image.Image], level: float
) -> None:
    one = applied(name, photo, level).astype(int)
    other = np.asarray(mirror(Image.fromarray(applied(name, mirror(photo), -level)))).astype(int)
    difference = np.abs(one - other)
    assert np.median(difference) == 0
    assert (difference > 2).mean() < 0.02


@pytest.mark.parametrize("name", OPERATIONS)
def test_level_0_changes_nothing_and_larger_ones_more_and_more(photo: Image.Image, name: str) -> None:
    x = np.asarray(photo).astype(int)
    if name in WITHOUT_LEVEL:
        assert np.array_equal(applied(name, photo, 0.0), applied(name, photo, 1.0))
        return
    for sign in (-1, 1):
        changes = [
            np.abs(applied(name, photo, sign * level).astype(int) - x) for level in (0, 0.3, 0.6, 0.95)
        ]
        if name == "posterize":  # four bits remain
            assert changes[0].max() == 15
        else:
            assert changes[0].max() == 0
        means = [change.mean() for change in changes]
        assert means == sorted(means)
        assert means[-1] > means[0] + 1


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_grey_image_becomes_what_it_would_in_three_equal_channels(photo: Image.Image, name: str) -> None:
    plain = photo.convert("L")
    for level in (-0.9, 0.35):
        one = np.asarray(OPERATIONS[name](plain, level, (97, 97, 97)))
        three = np.asarray(OPERATIONS[name](plain.convert("RGB"), level, (97, 97, 97)))
        assert one.shape == plain.size[::-1]
        assert np.abs(one[..., None].astype(int) - three).max() <= 1


def draws(seed: int, **settings: Any) -> ImageDraws:
    return ImageDraws(Augmentation(flip=False, **settings), Random(seed), FILL)


def test_each_of_the_fifteen_is_drawn_equally_often_and_left_out_half_of_the_time(photo: Image.Image) -> None:
    assert len(OPERATIONS) == 15
    small = photo.resize((24, 16))
    names: dict[bytes, tuple[str, int]] = {small.tobytes(): ("left out", 0)}
    for name in OPERATIONS:
        for sign in (-1, 1) if name in BOTH_WAYS else (0,):
            names[applied(name, small, 0.9 * (sign or 1)).tobytes()] = (name, sign)
    assert len(names) == 1 + 6 + 2 * 9
    settings = RandAugment(operations=1, magnitude_std=0)
    seen = Counter(
        names[finished(small, draws(seed, rand_augment=settings)).tobytes()] for seed in range(6000)
    )
    expected = [6000 * (0.5 if name == "left out" else 1 / 60 if sign else 1 / 30) for name, sign in seen]
    assert len(seen) == len(names)
    assert chisquare(list(seen.values()), expected).pvalue > 1e-4


def test_operations_follow_each_other(photo: Image.Image) -> None:
    """Both of two are left out for a quarter of the images; two times invert adds (1/2 * 1/15)^2."""
    small = photo.resize((24, 16))
    same = sum(
        finished(small, draws(seed, rand_augment=RandAugment())).tobytes() == small.tobytes()
        for seed in range(2000)
    )
    assert abs(same / 2000 - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 2000) + 1 / 900


@pytest.mark.parametrize(("magnitude", "deviation"), [(9.0, 0.5), (5.0, 1.0), (9.0, 0.0)])
def test_the_magnitude_is_normal_and_cut_at_10(magnitude: float, deviation: float) -> None:
    """Of an even grey of 200 only lower brightness gives 20 to 180; the others give above that or 128 or less."""
    flat = Image.new("L", (1, 1), 200)
    settings = RandAugment(operations=1, magnitude=magnitude, magnitude_std=deviation)
    values = [int(finished(flat, draws(seed, rand_augment=settings))[0, 0, 0]) for seed in range(20_000)]
    own = {200, 255 - 200, 128, 192, FILL[0]}
    found = np.array([10 * (1 - value / 200) / 0.9 for value in values if value < 200 and value not in own])
    assert 200 < len(found) < 500  # a sixtieth
    expected = np.clip(np.random.default_rng(1).normal(magnitude, deviation, 100_000), 0, 10)
    assert found.mean() == pytest.approx(expected.mean(), abs=0.03 + 5 * deviation / np.sqrt(len(found)))
    assert found.std() == pytest.approx(expected.std(), abs=0.03 + 0.2 * deviation)


def test_jitter_changes_brightness_and_contrast_by_uniform_factors(photo: Image.Image) -> None:
    """Brightness moves the mean, contrast the distance from it; half of the pixels are 80, the others 120."""
    two = Image.fromarray(np.repeat(np.array([[80, 120]], np.uint8), 2, 0))
    pixels = np.array([finished(two, draws(seed, color_jitter=0.4))[0, :, 0] for seed in range(1500)]).astype(
        float
    )
    brightness, contrast = pixels.mean(1) / 100, (pixels[:, 1] - pixels[:, 0]) / 40 / (pixels.mean(1) / 100)
    rough = np.random.default_rng(2)  # whole levels are spread over their width
    assert kstest((brightness + rough.uniform(-0.005, 0.005, 1500) - 0.6) / 0.8, "uniform").pvalue > 1e-4
    assert kstest((contrast + rough.uniform(-0.0125, 0.0125, 1500) - 0.6) / 0.8, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(brightness, contrast)[0, 1]) < 0.13


def test_jitter_changes_the_saturation_and_leaves_grey_images_grey(photo: Image.Image) -> None:
    flat = Image.new("RGB", (2, 2), (90, 110, 130))
    spans = [
        np.ptp(finished(flat, draws(seed, color_jitter=0.4))[0, 0].astype(int)) / 40 for seed in range(500)
    ]
    # the product of three factors of 0.6 to 1.4: brightness, contrast around the luma, and saturation
    assert 0.6**3 - 0.05 <= min(spans) < 0.5
    assert 1.7 < max(spans) <= 1.4**3 + 0.05
    assert finished(photo.convert("L"), draws(0, color_jitter=0.4)).shape == (214, 320, 1)
