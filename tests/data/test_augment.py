"""Resizing, normalising, cropping and mirroring against brute force and against Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image

from quadnas.data.augment import random_crops, to_network_input
from quadnas.data.augmentation import BASIC, Augmentation
from quadnas.data.draws import Draws
from quadnas.data.memory import MemorySplit
from quadnas.data.normalization import Normalization

PLAIN = Normalization((0.0,) * 3, (1.0,) * 3)


def whole(count: int) -> Draws:
    return Draws(BASIC, seed=1, count=count, positions=range(count))


def windows(image: np.ndarray, pad: int, flips: tuple[bool, ...]) -> dict[bytes, tuple[int, int, bool]]:
    """Every image that a shift by up to ``pad`` pixels and mirroring can make, by its bytes."""
    height, width = image.shape
    padded = np.zeros((height + 2 * pad, width + 2 * pad), np.uint8)
    padded[pad : pad + height, pad : pad + width] = image
    found = {}
    for y in range(2 * pad + 1):
        for x in range(2 * pad + 1):
            window = padded[y : y + height, x : x + width]
            for flip in flips:
                found[np.ascontiguousarray(window[:, ::-1] if flip else window).tobytes()] = (y, x, flip)
    return found


@pytest.mark.parametrize(("side", "pad"), [(8, 1), (14, 2)])
@pytest.mark.parametrize("flip", [False, True])
def test_crops_are_the_shifts_up_to_an_eighth_all_equally_often(side: int, pad: int, flip: bool) -> None:
    image = np.arange(1, side * side + 1, dtype=np.uint8).reshape(side, side)
    allowed = windows(image, pad, (False, True) if flip else (False,))
    draws = 200 * len(allowed)
    batch = torch.from_numpy(image).expand(draws, 3, side, side)
    crops = random_crops(batch, whole(draws), shift=True, flip=flip)
    assert crops.shape == batch.shape
    assert torch.equal(crops[:, 0], crops[:, 2]), "all channels move together"
    counts = dict.fromkeys(allowed.values(), 0)
    for crop in crops[:, 0]:
        counts[allowed[crop.contiguous().numpy().tobytes()]] += 1
    # Poisson(200) has a standard deviation of 14; five of them
    assert min(counts.values()) > 200 - 71
    assert max(counts.values()) < 200 + 71


def test_height_and_width_are_padded_by_their_own_eighth() -> None:
    image = torch.full((400, 1, 8, 32), 9, dtype=torch.uint8)
    crops = random_crops(image, whole(400), shift=True, flip=False)
    black_rows = (crops[:, 0].amax(2) == 0).sum(1)
    black_columns = (crops[:, 0].amax(1) == 0).sum(1)
    assert set(black_rows.tolist()) == {0, 1}
    assert set(black_columns.tolist()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("size", [8, 11, 20, 32, 57])
def test_a_constant_image_stays_constant_and_is_normalised(size: int) -> None:
    colours = torch.tensor([51, 102, 204], dtype=torch.uint8)
    images = colours.view(1, 3, 1, 1).expand(2, 3, 20, 20)
    out = to_network_input(images, size, Normalization((0.5, 0.4, 0.3), (0.1, 0.2, 0.5)))
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    # (51/255 - 0.5) / 0.1 = -3, (102/255 - 0.4) / 0.2 = 0, (204/255 - 0.3) / 0.5 = 1
    expected = torch.tensor([-3.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(2, 3, size, size)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def test_an_image_of_the_right_size_keeps_its_values_and_grey_is_repeated() -> None:
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    out = to_network_input(image, 16, PLAIN)
    torch.testing.assert_close(out, (torch.arange(256) / 255).view(1, 1, 16, 16).expand(1, 3, 16, 16))


@pytest.mark.parametrize("size", [7, 28, 45, 64])
def test_resizing_agrees_with_pillow(size: int) -> None:
    image = np.random.default_rng(3).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    ours = to_network_input(torch.from_numpy(image).permute(2, 0, 1)[None], size, PLAIN)[0] * 255
    pillow = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    # Pillow rounds to whole levels after each of its two passes
    assert np.abs(ours.permute(1, 2, 0).numpy() - pillow).max() <= 1.01


def ramps(count: int, channels: int, flip: bool) -> MemorySplit:
    """Brighter by 8 from column to column, by 0 from row to row; 20 x 24 pixels."""
    row = (8 * torch.arange(24) + 4).to(torch.uint8)
    images = row.expand(count, channels, 20, 24).contiguous()
    return MemorySplit(torch.zeros(count).long(), 2, PLAIN, images=images, flip=flip)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_resized_crops_in_memory_stretch_a_part_and_mirror_only_what_may_be_mirrored(
    channels: int, flip: bool
) -> None:
    count, size = 300, 48
    settings = Augmentation(crops="resized", scale=(0.25, 0.25), ratio=(1.0, 1.0))
    draws = Draws(settings, seed=3, count=count, positions=range(count))
    images = ramps(count, channels, flip).batch(torch.arange(count), size=size, draws=draws).images * 255
    assert images.shape == (count, 3, size, size)
    rise = images[:, 0, 5, 40] - images[:, 0, 5, 8]
    # a quarter of 480 pixels is a square of 10.95; 32 of its 48 columns rise by 8 a pixel
    torch.testing.assert_close(rise.abs(), torch.full((count,), 8 * 10.954 * 32 / 48), atol=2.5, rtol=0)
    assert (rise < 0).float().mean().item() == pytest.approx(0.5 * flip, abs=0.15)
    assert (images[:, :, 3] - images[:, :, 30]).abs().max() <= 1.01


@pytest.mark.parametrize("channels", [1, 3])
def test_images_in_memory_are_distorted_one_by_one_after_their_crop(channels: int) -> None:
    count = 64
    flat = torch.full((count, channels, 16, 16), 100, dtype=torch.uint8)
    split = MemorySplit(torch.zeros(count).long(), 2, PLAIN, images=flat, flip=True)
    draws = Draws(Augmentation(color_jitter=0.4), seed=3, count=count, positions=range(count))
    images = split.batch(torch.arange(count), size=16, draws=draws).images * 255
    bare = Draws(BASIC, seed=3, count=count, positions=range(count))
    inside = split.batch(torch.arange(count), size=16, draws=bare).images > 0
    middle = images[:, 0, 8, 8]
    assert middle.round().unique().numel() > 30
    # brightness 0.6 to 1.4; contrast around a mean that the black edge lowers adds less than a tenth
    assert middle.min() >= 50
    assert middle.max() <= 150
    for image, part in zip(images, inside, strict=True):
        assert image[part].unique().numel() == 1, "an even image stays even"
        # the black from beyond the edge has been there before the jitter: contrast may lift it, evenly
        assert image[~part].unique().numel() <= 1
