"""CIFAR binary files, written record by record as their description has it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from quadnas.data.base import load_data
from quadnas.data.memory import MemorySplit
from quadnas.data.sources.cifar import CIFAR10, CIFAR100, Cifar
from quadnas.errors import ConfigError, DataError

NAMES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def record(labels: list[int], number: int) -> bytes:
    """Red (y, x) is number + y, green is number + x, blue is 200."""
    red = bytes((number + y) % 256 for y in range(32) for _ in range(32))
    green = bytes((number + x) % 256 for _ in range(32) for x in range(32))
    return bytes(labels) + red + green + bytes([200]) * 1024


@pytest.fixture
def ten(tmp_path: Path) -> tuple[Cifar, Path]:
    """CIFAR-10 with 4 records per file; the files are numbered through."""
    files = [*CIFAR10.train, *CIFAR10.test]
    for position, name in enumerate(files):
        numbers = range(4 * position, 4 * position + 4)
        (tmp_path / name).write_bytes(b"".join(record([i % 10], i) for i in numbers))
    (tmp_path / "batches.meta.txt").write_text("\n".join(NAMES10) + "\n\n")
    return replace(CIFAR10, train=dict.fromkeys(CIFAR10.train, 4), test={"test_batch.bin": 4}), tmp_path


def test_cifar10_records_are_read_in_order_and_by_plane(ten: tuple[Cifar, Path]) -> None:
    source, folder = ten
    pools = source.load(str(folder), folder)
    assert pools.classes == tuple(NAMES10)
    assert pools.train.labels.tolist() == [i % 10 for i in range(20)]
    assert pools.test.labels.tolist() == [0, 1, 2, 3]
    assert isinstance(pools.train, MemorySplit)
    assert pools.train.images.shape == (20, 3, 32, 32)
    assert pools.train.images[13, :, 5, 9].tolist() == [13 + 5, 13 + 9, 200]


def test_cifar100_takes_the_fine_label(tmp_path: Path) -> None:
    (tmp_path / "train.bin").write_bytes(b"".join(record([i % 20, 99 - i], i) for i in range(3)))
    (tmp_path / "test.bin").write_bytes(record([7, 42], 5))
    (tmp_path / "fine_label_names.txt").write_text("".join(f"class_{i}\n" for i in range(100)))
    source = replace(CIFAR100, train={"train.bin": 3}, test={"test.bin": 1})
    pools = source.load(str(tmp_path), tmp_path)
    assert pools.train.labels.tolist() == [99, 98, 97]
    assert pools.test.labels.tolist() == [42]
    assert isinstance(pools.test, MemorySplit)
    assert pools.test.images[0, :, 3, 4].tolist() == [8, 9, 200]
    assert pools.classes[42] == "class_42"


@pytest.mark.parametrize("change", [-1, 1, -3073, 3073])
def test_a_file_of_another_length_is_a_data_error(ten: tuple[Cifar, Path], change: int) -> None:
    source, folder = ten
    path = folder / "data_batch_3.bin"
    path.write_bytes((path.read_bytes() + bytes(3073))[: 4 * 3073 + change])
    with pytest.raises(DataError, match=f"data_batch_3.bin: {4 * 3073 + change} bytes, but 4 records take"):
        source.load(str(folder), folder)


def test_a_label_or_a_class_name_too_many_is_a_data_error(ten: tuple[Cifar, Path]) -> None:
    source, folder = ten
    (folder / "test_batch.bin").write_bytes(b"".join(record([i], i) for i in (0, 1, 10, 2)))
    with pytest.raises(DataError, match=r"test_batch.bin: label 10.*0 to 9"):
        source.load(str(folder), folder)
    (folder / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match="2 class names, but 10 are needed"):
        source.load(str(folder), folder)


def test_a_missing_file_is_named(ten: tuple[Cifar, Path]) -> None:
    _, folder = ten
    (folder / "data_batch_2.bin").unlink()
    with pytest.raises(ConfigError, match=r"no data_batch_2.bin; give the folder"):
        load_data(f"cifar10:{folder}")


def test_the_shipped_sources_expect_the_published_sizes(tmp_path: Path) -> None:
    """30,730,000 bytes for a file of 10,000 CIFAR-10 records; the pixels are all black here."""
    for name in [*CIFAR10.train, *CIFAR10.test]:
        with (tmp_path / name).open("wb") as file:
            file.truncate(30_730_000)
    (tmp_path / "batches.meta.txt").write_text("\n".join(NAMES10))
    pools = CIFAR10.load(str(tmp_path), tmp_path)
    assert (len(pools.train), len(pools.test)) == (50_000, 10_000)
    assert isinstance(pools.train, MemorySplit)
    assert not torch.any(pools.train.images)
    assert (CIFAR100.train, CIFAR100.test) == ({"train.bin": 50_000}, {"test.bin": 10_000})
