"""Names of data sets, the held-out split and the limit; digits as the example that is always there."""

import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from quadnas.data.base import DataSet, Split, check_data, load_data
from quadnas.data.memory import MemorySplit
from quadnas.data.normalization import Normalization
from quadnas.errors import ConfigError


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data("digits")


def pixels(split: Split) -> list[bytes]:
    assert isinstance(split, MemorySplit)
    return [
        image.numpy().tobytes() + bytes([label])
        for image, label in zip(split.images, split.labels, strict=True)
    ]


def test_the_digits_splits_are_disjoint_and_cover_scikit_learns_data(digits: DataSet) -> None:
    bunch = load_digits()
    levels = [round(level * 255 / 16) for level in range(17)]
    source = [
        bytes(levels[int(v)] for v in image.ravel()) + bytes([label])
        for image, label in zip(bunch.images, bunch.target, strict=True)
    ]
    parts = [pixels(split) for split in (digits.train, digits.held_out, digits.test)]
    assert [len(part) for part in parts] == [1150, 288, 359]  # 359 = 0.2 * 1797, 288 = 0.2 * 1438
    assert sorted(chain(*parts)) == sorted(source)


def test_the_digits_are_a_demonstration_in_ten_classes_normalised_by_their_own_statistics(
    digits: DataSet,
) -> None:
    assert digits.demonstration
    assert digits.classes == tuple("0123456789")
    values = load_digits().images / 16
    assert digits.normalization.mean == pytest.approx([values.mean()] * 3, abs=2e-3)
    assert digits.normalization.std == pytest.approx([values.std()] * 3, abs=2e-3)


def test_every_split_has_every_class_in_its_share(digits: DataSet) -> None:
    share = torch.from_numpy(load_digits().target).bincount() / 1797
    for split in (digits.train, digits.held_out, digits.test):
        assert (split.labels.bincount() - len(split) * share).abs().max() <= 1.5


def test_the_same_text_gives_the_same_splits(digits: DataSet) -> None:
    again = load_data("digits")
    assert pixels(again.train) == pixels(digits.train)
    assert pixels(again.held_out) == pixels(digits.held_out)


def test_a_limit_keeps_a_stratified_part_of_the_training_images_and_the_whole_test_split(
    digits: DataSet,
) -> None:
    small = load_data("digits", limit=200)
    assert (len(small.train), len(small.held_out), len(small.test)) == (160, 40, 359)
    assert pixels(small.test) == pixels(digits.test)
    assert (small.train.labels.bincount() - 16).abs().max() <= 1
    assert set(pixels(small.train) + pixels(small.held_out)) <= set(
        pixels(digits.train) + pixels(digits.held_out)
    )
    assert len(load_data("digits", limit=10**6).train) == 1150


@pytest.mark.parametrize("limit", [19, 0, -5])
def test_a_limit_below_two_images_per_class_is_refused(limit: int) -> None:
    with pytest.raises(
        ConfigError, match=f"{max(0, limit)} training images for the 10 classes.*two per class"
    ):
        load_data("digits", limit=limit)


def test_another_normalisation_reaches_every_split(digits: DataSet) -> None:
    changed = digits.normalized_by(Normalization((0.0,) * 3, (0.5,) * 3))
    assert changed.normalization.std == (0.5,) * 3
    for split in (changed.train, changed.held_out, changed.test):
        images = split.batch(torch.arange(20), size=8, draws=None).images
        assert images.min() == 0
        assert images.max() == pytest.approx(2.0)


def test_batches_lie_on_the_device_asked_for(digits: DataSet) -> None:
    batch = digits.to(torch.device("meta")).test.batch(torch.arange(4), size=8, draws=None)
    assert batch.images.device.type == batch.labels.device.type == "meta"


@pytest.mark.parametrize("call", [check_data, load_data])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "digit",
            "'digit'; did you mean 'digits'.*cifar10, cifar100, digits, fashion-mnist, folder, imagenet",
        ),
        ("Cifar10:x", "unknown data set 'Cifar10'; did you mean 'cifar10'"),
        ("", "unknown data set ''"),
        ("folder:", "ends in a colon"),
        ("digits:here", "digits are embedded and take no path, not 'here'"),
        ("cifar100", "needs the folder.*train.bin.*cifar100:PATH"),
        ("imagenet", "needs a path.*train/CLASS/IMAGE.jpg and PATH/val"),
        ("folder:/no/such/place", "no folder /no/such/place.*PATH/CLASS/IMAGE.jpg"),
        ("fashion-mnist:/no/such/place", "not in /no/such/place.*apt-get install dataset-fashion-mnist"),
    ],
)
def test_what_is_not_there_is_a_config_error_with_the_next_step(
    call: object, text: str, message: str
) -> None:
    assert callable(call)
    with pytest.raises(ConfigError, match=message):
        call(text)


def test_checking_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    program = (
        "import sys; from quadnas.data.base import check_data; check_data('digits'); "
        f"check_data('folder:{tmp_path}'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
