"""Image folders: real PNG and JPEG files, every kind of pixel, damage, links, layouts."""

import math
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import kstest

from quadnas.data.augmentation import Augmentation
from quadnas.data.base import load_data
from quadnas.data.batches import minibatches
from quadnas.data.crops import random_box
from quadnas.data.draws import ImageDraws
from quadnas.data.files import FileSplit, read_image
from quadnas.errors import ConfigError, DataError


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, quality=95)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Two classes without a given split; the shade of red numbers the image."""
    for i in range(20):
        paint(tmp_path / "ant" / f"{i:02}.png", (i, 0, 0))
    for i in range(10):
        paint(tmp_path / "bee" / f"{i:02}.JPG", (100 + 10 * i, 255, 255))
    (tmp_path / "README.txt").write_text("not an image")
    (tmp_path / "ant" / "Thumbs.db").write_bytes(b"\x00")
    (tmp_path / ".cache").mkdir()
    return tmp_path


@pytest.fixture
def parted(tmp_path: Path) -> Path:
    for part, count in {"train": 5, "val": 2}.items():
        for name, blue in {"x": 50, "y": 200}.items():
            for i in range(count):
                paint(tmp_path / part / name / f"{part}{i}.png", (0, i, blue))
    return tmp_path


def files_of(split: object) -> list[str]:
    assert isinstance(split, FileSplit)
    return ["/".join(Path(path).parts[-2:]) for path in split.paths]


def test_one_folder_per_class_is_divided_into_disjoint_stratified_splits(flat: Path) -> None:
    data = load_data(f"folder:{flat}")
    assert data.classes == ("ant", "bee")
    parts = [data.train, data.held_out, data.test]
    everything = [f"ant/{i:02}.png" for i in range(20)] + [f"bee/{i:02}.JPG" for i in range(10)]
    assert sorted(file for part in parts for file in files_of(part)) == everything
    # a fifth of (20, 10) for the test; a fifth of the remaining (16, 8) is held out: 5 of 24
    assert data.test.labels.bincount().tolist() == [4, 2]
    assert data.held_out.labels.bincount().tolist() in ([3, 2], [4, 1])
    for part in parts:
        assert [("ant", "bee")[label] for label in part.labels] == [f[:3] for f in files_of(part)]


def test_a_new_image_leaves_the_division_of_its_neighbours_nearly_alone(flat: Path) -> None:
    before = set(files_of(load_data(f"folder:{flat}").test))
    paint(flat / "ant" / "00a.png", (1, 1, 1))
    after = set(files_of(load_data(f"folder:{flat}").test))
    assert len(before - after) <= 1


def test_the_splits_do_not_depend_on_the_order_in_which_files_were_written(tmp_path: Path) -> None:
    names = [f"{c}/{i:02}.png" for c in "ab" for i in range(10)]
    for root, order in (("one", names), ("two", names[::-1])):
        for name in order:
            paint(tmp_path / root / name, (0, 0, 0))
    one, two = (load_data(f"folder:{tmp_path / root}") for root in ("one", "two"))
    assert one.classes == two.classes == ("a", "b")
    assert files_of(one.train) == files_of(two.train)
    assert files_of(one.test) == files_of(two.test)


@pytest.mark.parametrize("name", ["folder", "imagenet"])
def test_given_parts_are_kept_apart(parted: Path, name: str) -> None:
    data = load_data(f"{name}:{parted}")
    assert data.classes == ("x", "y")
    assert sorted(files_of(data.train) + files_of(data.held_out)) == [
        f"{c}/train{i}.png" for c in "xy" for i in range(5)
    ]
    assert sorted(files_of(data.test)) == [f"{c}/val{i}.png" for c in "xy" for i in range(2)]
    images, labels = data.test.batch(torch.arange(4), size=16, draws=None)
    assert images.shape == (4, 3, 16, 16)
    assert images.is_contiguous(memory_format=torch.channels_last)
    # ImageNet's normalisation of the blue channel: mean 0.406, deviation 0.225
    blue = torch.tensor([(50, 200)[label] / 255 for label in labels])
    torch.testing.assert_close(images[:, 2].mean((1, 2)), (blue - 0.406) / 0.225)


def test_a_folder_may_call_its_second_part_test(parted: Path) -> None:
    (parted / "val").rename(parted / "test")
    assert len(load_data(f"folder:{parted}").test) == 4
    with pytest.raises(ConfigError, match=r"not both parts.*PATH/val/CLASS"):
        load_data(f"imagenet:{parted}")


def noisy(path: Path, seed: int, size: tuple[int, int] = (48, 36)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_batches_depend_neither_on_the_number_of_threads_nor_on_the_start(tmp_path: Path) -> None:
    for i in range(24):
        noisy(tmp_path / "ab"[i % 2] / f"{i}.png", i)
    train = load_data(f"folder:{tmp_path}").train
    assert isinstance(train, FileSplit)
    runs = [
        list(minibatches(replace(train, workers=workers), 4, size=20, seed=1, epoch=3, start=start))
        for workers, start in [(1, 0), (3, 0), (2, 2)]
    ]
    assert [len(run) for run in runs] == [3, 3, 1]
    for one, other in [*zip(runs[0], runs[1], strict=True), (runs[0][2], runs[2][0])]:
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
    another = list(minibatches(train, 4, size=20, seed=1, epoch=4))
    assert not torch.equal(another[0].images, runs[0][0].images)


@pytest.mark.parametrize(
    ("threads", "processes", "expected"), [(1, None, 1), (3, None, 3), (1, "2", 6), (1, "99", 1)]
)
def test_images_are_decoded_by_as_many_threads_as_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, processes: str | None, expected: int
) -> None:
    """As ``quadnas compare --workers`` divides them; torchrun's processes, of one thread each, share 12 cores."""
    for i in range(8):
        noisy(tmp_path / "ab"[i % 2] / f"{i}.png", i)
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        train = load_data(f"folder:{tmp_path}").train
    finally:
        torch.set_num_threads(before)
    assert isinstance(train, FileSplit)
    assert train.workers == expected


def test_evaluation_takes_the_centre_and_ignores_the_edge(tmp_path: Path) -> None:
    """Of 80 x 48 pixels the centred square of 42 remains: columns 19 to 61, rows 3 to 45."""
    pixels = np.random.default_rng(8).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    assert np.array_equal(read_image(str(tmp_path / "image.png"), 42, None), pixels[3:45, 19:61])


def test_files_are_resized_as_pillow_does_by_cubic_convolution(tmp_path: Path) -> None:
    noisy(tmp_path / "n.png", 4, size=(80, 48))
    with Image.open(tmp_path / "n.png") as image:
        expected = np.asarray(image.crop((19, 3, 61, 45)).resize((20, 20), Image.Resampling.BICUBIC)).astype(
            int
        )
    found = read_image(str(tmp_path / "n.png"), 20, None)
    assert np.abs(found[2:-2, 2:-2] - expected[2:-2, 2:-2]).max() <= 1  # the crop has no outside to look at


def chance(seed: int, **settings: Any) -> ImageDraws:
    return ImageDraws(Augmentation(**settings), Random(seed), fill=(0, 0, 0))


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**32))
def test_a_random_crop_lies_inside_and_keeps_to_area_and_aspect_or_is_the_largest_centred_part(
    width: int, height: int, seed: int
) -> None:
    left, top, right, bottom = random_box(width, height, chance(seed, scale=(0.2, 0.9), ratio=(0.5, 1.5)))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    share = (right - left) * (bottom - top) / (width * height)
    aspect = (right - left) / (bottom - top)
    assert 0.4999 <= aspect <= 1.5001
    if not 0.1999 <= share <= 0.9001:
        assert width - right == pytest.approx(left)
        assert height - bottom == pytest.approx(top)
        assert right - left == pytest.approx(width) or bottom - top == pytest.approx(height)


def test_random_crops_of_a_square_image_have_uniform_areas_log_uniform_aspects_and_uniform_places() -> None:
    """At most a third of a square's area fits for every aspect of 1/3 to 3, so nothing is drawn anew."""
    draws = chance(3, scale=(0.03, 0.33), ratio=(1 / 3, 3))
    boxes = np.array([random_box(100, 100, draws) for _ in range(4000)])
    sides = boxes[:, 2:] - boxes[:, :2]
    laws = {
        "area": (sides.prod(1) / 10_000 - 0.03) / 0.30,
        "aspect": (np.log(sides[:, 0] / sides[:, 1]) / math.log(3) + 1) / 2,
        "left": boxes[:, 0] / (100 - sides[:, 0]),
        "top": boxes[:, 1] / (100 - sides[:, 1]),
    }
    for name, values in laws.items():
        assert kstest(values, "uniform").pvalue > 1e-4, name


def test_half_of_the_crops_are_mirrored_and_none_without_flip(tmp_path: Path) -> None:
    noisy(tmp_path / "n.png", 5)
    mirrored = 0
    for seed in range(200):
        straight = read_image(str(tmp_path / "n.png"), 12, chance(seed, flip=False))
        either = read_image(str(tmp_path / "n.png"), 12, chance(seed))
        mirrored += np.array_equal(either, np.fliplr(straight))
        assert np.array_equal(either, np.fliplr(straight)) != np.array_equal(either, straight)
    assert 100 - 35 < mirrored < 100 + 35  # five standard deviations


def test_files_can_be_shifted_or_left_at_the_centre(tmp_path: Path) -> None:
    noisy(tmp_path / "n.png", 6)
    centre = read_image(str(tmp_path / "n.png"), 16, None)
    assert np.array_equal(
        read_image(str(tmp_path / "n.png"), 16, chance(0, crops="none", flip=False)), centre
    )
    padded = np.pad(centre, ((2, 2), (2, 2), (0, 0)))
    allowed = {padded[y : y + 16, x : x + 16].tobytes() for y in range(5) for x in range(5)}
    assert len(allowed) == 25
    seen = {
        read_image(str(tmp_path / "n.png"), 16, chance(seed, crops="shift", flip=False)).tobytes()
        for seed in range(300)
    }
    assert seen == allowed


def test_large_jpegs_are_decoded_smaller_without_shifting_the_crop(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 1600).round().astype(np.uint8)
    pixels = np.stack(
        [np.tile(ramp, (1200, 1)), np.tile(ramp[:1200, None], (1, 1600)), np.zeros((1200, 1600))], 2
    )
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "r.jpg", quality=100)
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "r.png")
    for seed in range(4):
        small, exact = (
            read_image(str(tmp_path / name), 32, chance(seed) if seed else None).astype(int)
            for name in ("r.jpg", "r.png")
        )
        assert np.abs(small - exact).max() <= 3


def grey16() -> Image.Image:
    return Image.fromarray(np.full((20, 20), 0x8080, np.uint16))


def palette(transparency: bytes | None) -> Image.Image:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    if transparency:
        image.info["transparency"] = transparency
    return image


@pytest.mark.parametrize(
    ("image", "suffix", "colour"),
    [
        (lambda: Image.new("L", (20, 20), 77), "png", (77, 77, 77)),
        (lambda: Image.new("1", (20, 20), 1), "png", (255, 255, 255)),
        (lambda: Image.new("LA", (20, 20), (90, 10)), "png", (90, 90, 90)),
        (lambda: Image.new("RGBA", (20, 20), (1, 2, 3, 128)), "png", (1, 2, 3)),
        (lambda: palette(None), "png", (10, 200, 30)),
        (lambda: palette(None), "gif", (10, 200, 30)),
        (lambda: palette(b"\xff\x80"), "png", (10, 200, 30)),
        (grey16, "png", (0x80, 0x80, 0x80)),
        (grey16, "tif", (0x80, 0x80, 0x80)),
        (lambda: Image.new("I", (20, 20), 65535), "tif", (255, 255, 255)),
        (lambda: Image.new("CMYK", (20, 20), (0, 0, 0, 155)), "jpg", (100, 100, 100)),
        (lambda: Image.new("RGB", (20, 20), (9, 8, 7)), "bmp", (9, 8, 7)),
        (lambda: Image.new("RGB", (20, 20), (9, 8, 7)), "ppm", (9, 8, 7)),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(
    tmp_path: Path, image: Callable[[], Image.Image], suffix: str, colour: tuple[int, int, int]
) -> None:
    path = tmp_path / f"image.{suffix}"
    image().save(path)
    pixels = read_image(str(path), 8, None)
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels.astype(int) - colour).max() <= 1


def png_of(width: int, height: int) -> bytes:
    """A PNG that only claims its size."""
    header = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + check + struct.pack(">I", 9) + b"IDAT"


@pytest.mark.parametrize("side", [10_000, 100_000])
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_a_decompression_bomb_is_a_data_error_whatever_the_warning_filter(
    tmp_path: Path, side: int, action: str
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(side, side))
    with warnings.catch_warnings():
        warnings.simplefilter(action)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=r"bomb.png.*(pixels|decompression bomb)"):
            read_image(str(path), 8, None)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("keep", [0, 5, 0.3, 0.9])
def test_a_cut_image_stops_the_batch_with_its_name(tmp_path: Path, suffix: str, keep: float) -> None:
    for i in range(12):
        noisy(tmp_path / "ab"[i % 2] / f"{i}.{suffix}", i)
    bad = tmp_path / "a" / f"4.{suffix}"
    content = bad.read_bytes()
    bad.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    data = load_data(f"folder:{tmp_path}")
    splits = [split for split in (data.train, data.held_out, data.test) if f"a/4.{suffix}" in files_of(split)]
    assert len(splits) == 1
    with pytest.raises(DataError, match=rf"cannot decode the image {bad}: .*; repair or remove it"):
        list(minibatches(splits[0], len(splits[0]), size=16, seed=0, epoch=0))


def test_no_damage_escapes_as_another_error(tmp_path: Path) -> None:
    """Random bytes written over random places of real files are decoded or refused, nothing else."""
    random = np.random.default_rng(11)
    for suffix in ("png", "jpg", "gif", "bmp", "tif", "webp"):
        noisy(tmp_path / f"good.{suffix}", 1)
        content = (tmp_path / f"good.{suffix}").read_bytes()
        for _ in range(40):
            damaged = bytearray(content)
            for place in random.integers(0, min(len(damaged), 400), 6):
                damaged[place] = random.integers(256)
            path = tmp_path / f"bad.{suffix}"
            path.write_bytes(damaged)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    assert read_image(str(path), 8, None).shape == (8, 8, 3)
                except DataError as error:
                    assert str(path) in str(error)


def test_other_formats_in_disguise_and_unknown_ranges_are_refused(tmp_path: Path) -> None:
    (tmp_path / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.new("F", (9, 9), 0.5).save(tmp_path / "float.tif")
    Image.new("I", (9, 9), 70_000).save(tmp_path / "wide.tif")
    for name, reason in {
        "script.png": "cannot identify",
        "float.tif": "floating",
        "wide.tif": "16-bit",
    }.items():
        with pytest.raises(DataError, match=f"{name}.*{reason}"):
            read_image(str(tmp_path / name), 8, None)


def break_layout(root: Path, how: str) -> None:
    match how:
        case "empty":
            for folder in ("ant", "bee"):
                (root / folder).rename(root / f".{folder}")
        case "one class":
            (root / "bee").rename(root / ".bee")
        case "empty class":
            (root / "cat").mkdir()
        case "nested":
            (root / "ant" / "black").mkdir()
        case "train alone":
            (root / "ant").rename(root / "train")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("empty", "0 class folders, at least 2 needed; expected: PATH/train/CLASS"),
        ("one class", "1 class folders, at least 2 needed"),
        ("empty class", "no image in the class folder .*cat; .*[.]jpg"),
        ("nested", "black: a folder inside a class folder"),
        ("train alone", "not both parts"),
    ],
)
def test_a_wrong_layout_is_a_config_error_that_shows_the_right_one(
    flat: Path, how: str, message: str
) -> None:
    break_layout(flat, how)
    with pytest.raises(ConfigError, match=message):
        load_data(f"folder:{flat}")


def test_parts_with_different_classes_are_refused(parted: Path) -> None:
    paint(parted / "val" / "z" / "0.png", (1, 1, 1))
    with pytest.raises(ConfigError, match="train and val must have the same classes, but 'z'"):
        load_data(f"folder:{parted}")


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        for i in range(2):
            paint(tmp_path / name / f"{i}.png", (0, 0, 0))
    with pytest.raises(ConfigError, match="3 training images for the 2 classes"):
        load_data(f"folder:{tmp_path}")


def test_links_inside_are_followed_and_links_outside_refused(
    flat: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (flat / "bee" / "link.png").symlink_to(flat / "ant" / "03.png")
    (flat / "cub").symlink_to(flat / "bee")
    data = load_data(f"folder:{flat}")
    assert data.classes == ("ant", "bee", "cub")
    assert len(data.train) + len(data.held_out) + len(data.test) == 20 + 11 + 11
    paint(outside / "secret.png", (1, 2, 3))
    link = flat / "ant" / "out.png"
    for target in (outside / "secret.png", outside, flat / "ant" / "absent.png", Path("..", "..", "x.png")):
        link.symlink_to(target)
        with pytest.raises(DataError, match=rf"{link}: the link leads to .*must stay inside"):
            load_data(f"folder:{flat}")
        link.unlink()
    (flat / "dog").symlink_to(outside)
    with pytest.raises(DataError, match="dog: the link leads to"):
        load_data(f"folder:{flat}")
