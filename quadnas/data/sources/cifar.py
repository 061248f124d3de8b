"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), binary version: plain records, nothing that executes on load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quadnas.data.base import SOURCES, Pools
from quadnas.data.normalization import Normalization
from quadnas.errors import ConfigError, DataError

if TYPE_CHECKING:
    from quadnas.data.memory import MemorySplit

SIDE = 32
PIXEL_BYTES = 3 * SIDE * SIDE


@dataclass(frozen=True)
class Cifar:
    """A folder of binary files, each a known number of records: label bytes, then red, green, blue planes.

    ``train`` and ``test`` map file to number of records. Of several label bytes the last is the class.
    """

    name: str
    label_bytes: int
    class_count: int
    class_file: str
    train: Mapping[str, int]
    test: Mapping[str, int]
    normalization: Normalization

    def check(self, argument: str | None) -> None:
        """See ``Source.check``."""
        wanted = (*self.train, *self.test, self.class_file)
        if argument is None:
            raise ConfigError(
                f"{self.name} needs the folder of its binary version with {', '.join(wanted)}; "
                f"give {self.name}:PATH"
            )
        folder = Path(argument).expanduser()
        missing = [name for name in wanted if not (folder / name).is_file()]
        if missing:
            raise ConfigError(
                f"{self.name} (binary version) is not in {folder}: no {', '.join(missing)}; "
                "give the folder that holds them"
            )

    def load(self, argument: str | None, cache: Path) -> Pools:
        """See ``Source.load``."""
        folder = Path(argument or "").expanduser()
        return Pools(
            classes=self._classes(folder / self.class_file),
            train=self._split(folder, self.train),
            test=self._split(folder, self.test),
            default_train_size=64,
            note=f"{self.name.upper()}: 32x32 colour images (Krizhevsky)",
        )

    def _classes(self, path: Path) -> tuple[str, ...]:
        try:
            classes = tuple(path.read_text(encoding="ascii").split())
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot read the class names: {error}") from None
        if len(set(classes)) != self.class_count:
            raise DataError(f"{path}: {len(set(classes))} class names, but {self.class_count} are needed")
        return classes

    def _split(self, folder: Path, files: Mapping[str, int]) -> MemorySplit:
        import torch  # noqa: PLC0415

        from quadnas.data.memory import MemorySplit  # noqa: PLC0415

        records = np.concatenate([self._records(folder / name, count) for name, count in files.items()])
        return MemorySplit(
            labels=torch.from_numpy(records[:, self.label_bytes - 1].astype(np.int64)),
            class_count=self.class_count,
            normalization=self.normalization,
            images=torch.from_numpy(records[:, self.label_bytes :].reshape(-1, 3, SIDE, SIDE)),
            flip=True,
        )

    def _records(self, path: Path, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        length = count * (self.label_bytes + PIXEL_BYTES)
        try:
            found = path.stat().st_size
            content = path.read_bytes() if found == length else b""
        except OSError as error:
            raise DataError(f"{path}: cannot read it: {error}") from None
        if len(content) != length:
            raise DataError(f"{path}: {found} bytes, but {count} records take {length}; unpack it again")
        records = np.frombuffer(content, np.uint8).reshape(count, -1)
        label = int(records[:, self.label_bytes - 1].max())
        if label >= self.class_count:
            raise DataError(f"{path}: label {label}, but labels go from 0 to {self.class_count - 1}")
        return records


CIFAR10 = Cifar(
    name="cifar10",
    label_bytes=1,
    class_count=10,
    class_file="batches.meta.txt",
    train={f"data_batch_{i}.bin": 10_000 for i in range(1, 6)},
    test={"test_batch.bin": 10_000},
    normalization=Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
)
CIFAR100 = Cifar(
    name="cifar100",
    label_bytes=2,
    class_count=100,
    class_file="fine_label_names.txt",
    train={"train.bin": 50_000},
    test={"test.bin": 10_000},
    normalization=Normalization((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
)
SOURCES.register(CIFAR10.name)(CIFAR10)
SOURCES.register(CIFAR100.name)(CIFAR100)
