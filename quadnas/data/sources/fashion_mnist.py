"""Fashion-MNIST (Xiao et al., 2017): 60,000 + 10,000 grey images of 28 x 28 pixels in IDX files."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import urllib.request
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from quadnas.data.base import SOURCES, Pools
from quadnas.data.normalization import Normalization
from quadnas.errors import ConfigError, DataError, MachineError

if TYPE_CHECKING:
    import torch

    from quadnas.data.memory import MemorySplit

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"
SIDE = 28
MAX_ITEMS = 60_000
MAX_FILE_BYTES = 30_000_000
IMAGES, LABELS = "{}-images-idx3-ubyte.gz", "{}-labels-idx1-ubyte.gz"
# Of the decoded bytes, since packagers compress the same data anew.
SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


class FashionMnist:
    """Read from Debian's package, from a folder of the four files, or downloaded (argument ``download``)."""

    def check(self, argument: str | None) -> None:
        """See ``Source.check``."""
        folder = Path(argument).expanduser() if argument else DEBIAN_FOLDER
        missing = [name for name in SHA256 if not (folder / name).is_file()]
        if argument != "download" and missing:
            raise ConfigError(
                f"Fashion-MNIST is not in {folder} (no {missing[0]}); run 'apt-get install "
                "dataset-fashion-mnist', or give a folder with the four .gz files as fashion-mnist:PATH, "
                "or fashion-mnist:download"
            )

    def load(self, argument: str | None, cache: Path) -> Pools:
        """See ``Source.load``."""
        if argument == "download":
            folder = cache / "data" / "fashion-mnist"
            for name, digest in SHA256.items():
                download(f"{URL}/{name}", folder / name, digest)
        else:
            folder = Path(argument).expanduser() if argument else DEBIAN_FOLDER
        return Pools(
            classes=CLASSES,
            train=_split(folder, "train"),
            test=_split(folder, "t10k"),
            default_train_size=64,
            note="Fashion-MNIST: 28x28 grey images of clothing (Zalando)",
        )


def read_idx(path: Path, dimensions: tuple[int, ...]) -> torch.Tensor:
    """The uint8 tensor (N, *dimensions) of a gzipped IDX file with N up to 60,000.

    Raises DataError naming the file if the magic number, a dimension or the length is not as it must be, or
    if the compressed stream is damaged.
    """
    import torch  # noqa: PLC0415

    header_bytes = 4 * (len(dimensions) + 2)
    try:
        with gzip.open(path) as file:
            header = file.read(header_bytes)
            if len(header) < header_bytes:
                raise DataError(f"{path}: the IDX header is cut short")
            magic, count, *shape = struct.unpack(f">{len(dimensions) + 2}I", header)
            # 0x08 stands for unsigned bytes, the last byte for the number of dimensions
            expected = 0x0800 + len(dimensions) + 1
            if magic != expected or tuple(shape) != dimensions or not 0 < count <= MAX_ITEMS:
                raise DataError(
                    f"{path}: an IDX file with magic {magic:#010x} and dimensions {[count, *shape]}; it must "
                    f"have magic {expected:#010x} and [1 to {MAX_ITEMS}, *{list(dimensions)}]"
                )
            length = count * math.prod(dimensions)
            content = file.read(length + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a complete gzip file ({error}); install or download it again") from None
    if len(content) != length:
        raise DataError(f"{path}: the header promises {length} bytes, the file holds {len(content)} or more")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(count, *dimensions)


def download(url: str, path: Path, sha256: str) -> None:
    """Fetch a gzip file to ``path`` unless it is there; ``sha256`` is that of the decompressed bytes.

    The file appears only once it is complete and verified. Raises DataError if it is not the pinned one,
    MachineError without network or disk.
    """
    if path.is_file():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310
            content = response.read(MAX_FILE_BYTES + 1)
        _verify(content, url, sha256)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(
            f"cannot download {url} to {path}: {error}; give a folder as fashion-mnist:PATH"
        ) from None


def _verify(content: bytes, url: str, sha256: str) -> None:
    try:
        found = hashlib.sha256(gzip.decompress(content)).hexdigest()
    except (OSError, EOFError, zlib.error):
        found = "none, since it is no gzip file"
    if found != sha256:
        raise DataError(f"{url}: sha256 of the content must be {sha256}, but is {found}; nothing was kept")


def _split(folder: Path, part: str) -> MemorySplit:
    from quadnas.data.memory import MemorySplit  # noqa: PLC0415

    images = read_idx(folder / IMAGES.format(part), (SIDE, SIDE))
    labels = read_idx(folder / LABELS.format(part), ())
    if len(images) != len(labels):
        raise DataError(f"{folder}: {len(images)} {part} images but {len(labels)} labels")
    if int(labels.max()) >= len(CLASSES):
        raise DataError(f"{folder}: {part} label {int(labels.max())}, but labels go from 0 to 9")
    return MemorySplit(
        labels=labels.long(),
        class_count=len(CLASSES),
        normalization=Normalization((0.286,) * 3, (0.353,) * 3),
        images=images.unsqueeze(1),
        flip=True,
    )


SOURCES.register("fashion-mnist")(FashionMnist())
