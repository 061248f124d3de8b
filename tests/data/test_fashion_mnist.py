"""Fashion-MNIST: IDX files written byte by byte, damage to them, the real files, the download."""

import gzip
import hashlib
import struct
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from quadnas.data.base import load_data
from quadnas.data.memory import MemorySplit
from quadnas.data.sources import fashion_mnist
from quadnas.data.sources.fashion_mnist import DEBIAN_FOLDER, SHA256, download, read_idx
from quadnas.errors import ConfigError, DataError, MachineError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = SHA256


def images_idx(count: int) -> bytes:
    """Pixel (y, x) of image i is (i + 2 y + 3 x) mod 256."""
    pixels = bytes((i + 2 * y + 3 * x) % 256 for i in range(count) for y in range(28) for x in range(28))
    return b"\x00\x00\x08\x03" + struct.pack(">3I", count, 28, 28) + pixels


def labels_idx(count: int) -> bytes:
    return b"\x00\x00\x08\x01" + struct.pack(">I", count) + bytes(i % 10 for i in range(count))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty training and ten test images; class = number mod 10."""
    for name, content in {
        TRAIN_IMAGES: images_idx(40),
        TRAIN_LABELS: labels_idx(40),
        TEST_IMAGES: images_idx(10),
        TEST_LABELS: labels_idx(10),
    }.items():
        (tmp_path / name).write_bytes(gzip.compress(content))
    return tmp_path


def test_a_folder_of_idx_files_is_read_pixel_by_pixel(folder: Path) -> None:
    data = load_data(f"fashion-mnist:{folder}")
    assert data.classes[0] == "T-shirt/top"
    assert data.classes[9] == "Ankle boot"
    assert (len(data.train), len(data.held_out), len(data.test)) == (32, 8, 10)
    assert isinstance(data.test, MemorySplit)
    assert data.test.images.shape == (10, 1, 28, 28)
    assert data.test.images[7, 0, 5, 11].item() == 7 + 10 + 33
    assert data.test.images[9, 0, 27, 27].item() == 9 + 54 + 81
    assert data.test.labels.tolist() == list(range(10))
    firsts = [
        split.images[:, 0, 0, 0] for split in (data.train, data.held_out) if isinstance(split, MemorySplit)
    ]
    assert sorted(torch.cat(firsts).tolist()) == list(range(40))
    assert firsts[1].max() >= 10, "held-out images must not be the first of their classes"
    for split in (data.train, data.held_out):
        assert isinstance(split, MemorySplit)
        assert (split.images[:, 0, 0, 0] % 10).tolist() == split.labels.tolist()


CONTENT = labels_idx(40)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00\x00\x08\x03" + CONTENT[4:], "magic 0x00000803.*must have magic 0x00000801"),
        (b"\x00\x00\x0d\x01" + CONTENT[4:], "magic 0x00000d01"),
        (CONTENT[:6], "header is cut short"),
        (CONTENT[:-1], "promises 40 bytes, the file holds 39"),
        (CONTENT + b"\x00", "promises 40 bytes, the file holds 41"),
        (CONTENT[:4] + bytes(4), r"\[0\]"),
        (CONTENT[:4] + b"\xff" * 4 + CONTENT[8:], "4294967295"),
        (CONTENT[:-1] + b"\x0a", "label 10, but labels go from 0 to 9"),
        (labels_idx(39), "40 train images but 39 labels"),
    ],
)
def test_a_wrong_idx_file_is_a_data_error(folder: Path, content: bytes, message: str) -> None:
    (folder / TRAIN_LABELS).write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=message) as caught:
        load_data(f"fashion-mnist:{folder}")
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("kept", range(len(gzip.compress(CONTENT, mtime=0))))
def test_a_file_cut_anywhere_is_a_data_error(folder: Path, kept: int) -> None:
    (folder / TRAIN_LABELS).write_bytes(gzip.compress(CONTENT, mtime=0)[:kept])
    with pytest.raises(DataError, match=r"not a complete gzip file|header is cut short"):
        load_data(f"fashion-mnist:{folder}")


def test_a_file_that_is_not_compressed_is_a_data_error(folder: Path) -> None:
    (folder / TRAIN_LABELS).write_bytes(CONTENT)
    with pytest.raises(DataError, match="not a complete gzip file"):
        load_data(f"fashion-mnist:{folder}")


def test_images_of_another_size_are_refused(folder: Path) -> None:
    content = images_idx(40)[:8] + struct.pack(">2I", 56, 14) + images_idx(40)[16:]
    (folder / TRAIN_IMAGES).write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"dimensions \[40, 56, 14\].*28, 28"):
        load_data(f"fashion-mnist:{folder}")


@pytest.mark.parametrize("position", range(0, 60, 4))
def test_a_changed_byte_anywhere_in_the_stream_is_noticed(folder: Path, position: int) -> None:
    """The fixed header apart (time stamp, operating system), which says nothing about the content."""
    content = bytearray(gzip.compress(labels_idx(40), mtime=0))
    position = 10 + position % (len(content) - 10)
    content[position] ^= 0x55
    (folder / TRAIN_LABELS).write_bytes(content)
    with pytest.raises(DataError):
        load_data(f"fashion-mnist:{folder}")


def test_without_the_files_the_error_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path)
    with pytest.raises(ConfigError, match=r"apt-get install dataset-fashion-mnist.*:PATH.*:download"):
        load_data("fashion-mnist")


needs_debian = pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)


@needs_debian
def test_the_real_data_have_the_published_counts() -> None:
    data = load_data("fashion-mnist")
    assert (len(data.train), len(data.held_out), len(data.test)) == (48_000, 12_000, 10_000)
    assert data.train.labels.bincount().tolist() == [4_800] * 10
    assert data.held_out.labels.bincount().tolist() == [1_200] * 10
    assert data.test.labels.bincount().tolist() == [1_000] * 10
    assert isinstance(data.train, MemorySplit)
    values = data.train.images.double() / 255
    assert data.normalization.mean == pytest.approx([values.mean().item()] * 3, abs=1e-3)
    assert data.normalization.std == pytest.approx([values.std().item()] * 3, abs=1e-3)
    # The first test image is an ankle boot
    assert data.test.labels[0] == 9


@needs_debian
@pytest.mark.parametrize("name", SHA256)
def test_the_pinned_digests_are_those_of_debians_files(name: str) -> None:
    with gzip.open(DEBIAN_FOLDER / name) as file:
        assert hashlib.sha256(file.read()).hexdigest() == SHA256[name]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    """The four files on a local web server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_download_is_verified_used_and_kept(
    url: str, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    digests = {
        name: hashlib.sha256(gzip.decompress((folder / name).read_bytes())).hexdigest() for name in SHA256
    }
    monkeypatch.setattr(fashion_mnist, "URL", url)
    monkeypatch.setattr(fashion_mnist, "SHA256", digests)
    assert len(load_data("fashion-mnist:download", root=cache).train) == 32
    monkeypatch.setattr(fashion_mnist, "URL", "http://127.0.0.1:9/nothing-listens-here")
    monkeypatch.setenv("QUADNAS_HOME", str(cache))
    assert len(load_data("fashion-mnist:download").train) == 32


def test_a_download_that_is_not_the_pinned_one_is_refused_and_not_kept(url: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "labels.gz"
    with pytest.raises(DataError, match=f"sha256 of the content must be {'0' * 64}, but is [0-9a-f]{{64}}"):
        download(f"{url}/{TRAIN_LABELS}", target, "0" * 64)
    (tmp_path / "page.gz").write_text("<html>please log in</html>")
    with pytest.raises(DataError, match="no gzip file"):
        download(f"{url}/page.gz", target, "0" * 64)
    assert list(target.parent.iterdir()) == []


def test_no_network_and_no_such_file_are_machine_errors(url: str, tmp_path: Path) -> None:
    for address in ("http://127.0.0.1:9/labels.gz", f"{url}/absent.gz"):
        with pytest.raises(MachineError, match=r"cannot download.*fashion-mnist:PATH"):
            download(address, tmp_path / "labels.gz", "0" * 64)
    assert not (tmp_path / "labels.gz").exists()


def test_an_idx_file_of_images_is_read_as_a_tensor(folder: Path) -> None:
    tensor = read_idx(folder / TEST_IMAGES, (28, 28))
    assert tensor.dtype == torch.uint8
    assert tensor[3].tolist() == [[(3 + 2 * y + 3 * x) % 256 for x in range(28)] for y in range(28)]
