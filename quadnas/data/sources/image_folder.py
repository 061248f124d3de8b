"""Folders of images, one folder per class: ``folder:PATH`` (a user's own) and ``imagenet:PATH``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quadnas.data.base import SOURCES, Pools
from quadnas.data.normalization import IMAGENET_NORMALIZATION
from quadnas.errors import ConfigError, DataError

if TYPE_CHECKING:
    from quadnas.data.files import FileSplit

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
TEST_SHARE = 0.2
Classes = dict[str, list[str]]


@dataclass(frozen=True)
class ImageFolder:
    """``train/CLASS/*.jpg`` beside one of ``test_names``; or, unless ``split_given``, ``CLASS/*.jpg`` alone.

    In the second form a fixed stratified fifth, chosen by the hash of ``CLASS/FILE``, is the test split.
    Links are followed only to places inside the folder; names that begin with a dot are not looked at.
    """

    name: str
    test_names: tuple[str, ...]
    split_given: bool

    def check(self, argument: str | None) -> None:
        """See ``Source.check``; looks at the top level only."""
        if argument is None:
            raise ConfigError(f"{self.name} needs a path: {self.name}:PATH; {self._layout()}")
        root = Path(argument).expanduser()
        if not root.is_dir():
            raise ConfigError(f"no folder {root} for --data {self.name}:{argument}; {self._layout()}")
        train = (root / "train").is_dir()
        if (self.split_given or train) and not (train and self._test_folder(root)):
            raise ConfigError(f"{root} has not both parts of the data; {self._layout()}")

    def load(self, argument: str | None, cache: Path) -> Pools:
        """See ``Source.load``; lists the files, decodes none."""
        root = Path(argument or "").expanduser()
        test_folder = self._test_folder(root)
        if test_folder is not None and (root / "train").is_dir():
            train_files, test_files = self._classes(root / "train", root), self._classes(test_folder, root)
            if train_files.keys() != test_files.keys():
                odd = sorted(train_files.keys() ^ test_files.keys())
                raise ConfigError(
                    f"{root}: train and {test_folder.name} must have the same classes, but {odd[0]!r} "
                    "is in one of them only"
                )
            train, test = _split(train_files), _split(test_files)
        else:
            train_files = self._classes(root, root)
            train, test = _divided(_split(train_files))
        return Pools(
            classes=tuple(train_files),
            train=train,
            test=test,
            default_train_size=128,
            note=f"{len(train) + len(test)} images of {len(train_files)} classes in {root}",
        )

    def _classes(self, folder: Path, root: Path) -> Classes:
        """Class name -> its image files, both sorted."""
        inside = root.resolve()
        classes: Classes = {}
        for entry in _entries(folder, inside):
            if not entry.is_dir():
                continue
            files = []
            for file in _entries(Path(entry.path), inside):
                if file.is_dir():
                    raise ConfigError(f"{file.path}: a folder inside a class folder; {self._layout()}")
                if Path(file.name).suffix.lower() in SUFFIXES:
                    files.append(file.path)
            if not files:
                raise ConfigError(
                    f"no image in the class folder {entry.path}; a class needs files ending in "
                    f"{', '.join(sorted(SUFFIXES))}"
                )
            classes[entry.name] = files
        if len(classes) < 2:
            raise ConfigError(f"{folder}: {len(classes)} class folders, at least 2 needed; {self._layout()}")
        return classes

    def _test_folder(self, root: Path) -> Path | None:
        return next((root / name for name in self.test_names if (root / name).is_dir()), None)

    def _layout(self) -> str:
        parts = f"PATH/train/CLASS/IMAGE.jpg and PATH/{'|'.join(self.test_names)}/CLASS/IMAGE.jpg"
        return f"expected: {parts}" + ("" if self.split_given else ", or PATH/CLASS/IMAGE.jpg")


def _entries(folder: Path, inside: Path) -> Iterator[os.DirEntry[str]]:
    """What a folder holds, by name; raises DataError for a link that is broken or leads out of ``inside``."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror}") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_symlink():
            target = Path(entry.path).resolve()
            if not (target.exists() and target.is_relative_to(inside)):
                raise DataError(f"{entry.path}: the link leads to {target}, but must stay inside {inside}")
        yield entry


def _split(classes: Classes) -> FileSplit:
    import torch  # noqa: PLC0415

    from quadnas.data.files import FileSplit  # noqa: PLC0415

    labels = [label for label, files in enumerate(classes.values()) for _ in files]
    return FileSplit(
        labels=torch.tensor(labels),
        class_count=len(classes),
        normalization=IMAGENET_NORMALIZATION,
        paths=tuple(path for files in classes.values() for path in files),
    )


def _divided(whole: FileSplit) -> tuple[FileSplit, FileSplit]:
    from quadnas.data.order import stratified_order  # noqa: PLC0415

    order = stratified_order(whole.labels, ("/".join(Path(path).parts[-2:]) for path in whole.paths))
    test = max(1, round(len(order) * TEST_SHARE))
    return whole.subset(order[test:]), whole.subset(order[:test])


SOURCES.register("folder")(ImageFolder("folder", test_names=("test", "val"), split_given=False))
SOURCES.register("imagenet")(ImageFolder("imagenet", test_names=("val",), split_given=True))
