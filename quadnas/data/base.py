"""The data contract: a source gives two pools, `load_data` makes of them a data set with a held-out split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from quadnas.data.normalization import Normalization
from quadnas.errors import ConfigError
from quadnas.registry import Registry
from quadnas.resources import own_home

if TYPE_CHECKING:
    import torch

    from quadnas.data.draws import Draws

HELD_OUT_SHARE = 0.2


class Batch(NamedTuple):
    """Network input: ``images`` (B, 3, S, S) float32, normalised, channels-last.

    ``labels`` is (B,) int64, or (B, classes) float32 shares where an augmentation mixes images; either is a
    target of ``cross_entropy``.
    """

    images: torch.Tensor
    labels: torch.Tensor

    @property
    def classes(self) -> torch.Tensor:
        """The class with the largest share, (B,) int64."""
        return self.labels if self.labels.ndim == 1 else self.labels.argmax(1)


@dataclass(frozen=True, eq=False)
class Split(ABC):
    """Labelled images that are read by index; ``labels`` is (N,) int64 on the CPU, below ``class_count``.

    Nothing in a split is random: every random number comes from the draws given to ``batch``.
    """

    labels: torch.Tensor
    class_count: int
    normalization: Normalization

    lookahead = 0
    """Batches worth preparing in the background: 0 where images already lie in memory."""

    def __len__(self) -> int:
        return len(self.labels)

    def normalized_by(self, normalization: Normalization) -> Self:
        """The same images under another normalisation, such as that of a model spec."""
        return replace(self, normalization=normalization)

    @abstractmethod
    def batch(self, indices: torch.Tensor, *, size: int, draws: Draws | None) -> Batch:
        """The images at ``indices`` (B,) as ``size`` x ``size`` pixels, with int64 labels.

        ``draws``, one position per index, tell the augmentation of the bytes: crops, mirroring and
        distortions; None means none of it. Raises DataError naming the file that cannot be decoded.
        """

    @abstractmethod
    def subset(self, indices: torch.Tensor) -> Self:
        """The split of the images at ``indices`` (M,), in that order."""

    @abstractmethod
    def to(self, device: torch.device) -> Self:
        """The split whose batches lie on ``device``."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images to search with and to report on.

    ``training`` holds all training images; a search divides them into ``train`` and ``held_out`` (for
    architecture steps), a fixed, stratified fifth. ``default_train_size`` is in pixels; ``demonstration`` marks
    data too small for any conclusion; ``note`` says in one sentence what the data are.
    """

    name: str
    classes: tuple[str, ...]
    training: Split
    train: Split
    held_out: Split
    test: Split
    default_train_size: int
    demonstration: bool
    note: str

    @property
    def normalization(self) -> Normalization:
        """The normalisation that all splits share."""
        return self.train.normalization

    @property
    def identity(self) -> tuple[object, ...]:
        """Tells apart data sets of other classes, sizes, orders and normalisations without reading images."""
        labels = tuple(split.labels.tolist() for split in (self.train, self.held_out, self.test))
        return self.classes, self.normalization, labels

    def normalized_by(self, normalization: Normalization) -> DataSet:
        """The same data under another normalisation."""
        return self._each(lambda split: split.normalized_by(normalization))

    def to(self, device: torch.device) -> DataSet:
        """The same data, with batches on ``device``."""
        return self._each(lambda split: split.to(device))

    def _each(self, change: Callable[[Split], Split]) -> DataSet:
        return replace(
            self,
            training=change(self.training),
            train=change(self.train),
            held_out=change(self.held_out),
            test=change(self.test),
        )


@dataclass(frozen=True, eq=False)
class Pools:
    """What a source gives: all its training images and its test images; the rest as in ``DataSet``."""

    classes: tuple[str, ...]
    train: Split
    test: Split
    default_train_size: int
    note: str
    demonstration: bool = False


class Source(Protocol):
    """One kind of data; ``argument`` is what follows the colon (``cifar10:PATH``), or None."""

    def check(self, argument: str | None) -> None:
        """Find what is missing without reading images or importing torch; raises ConfigError."""

    def load(self, argument: str | None, cache: Path) -> Pools:
        """Read the data; downloads go to ``cache``. Raises ConfigError, DataError, MachineError."""


SOURCES: Registry[Source] = Registry("data set", "quadnas.data.sources", "quadnas.data")


def check_data(text: str) -> None:
    """Check that ``text`` names data that are there, without importing torch; raises ConfigError."""
    source, argument = _parse(text)
    source.check(argument)


def load_data(text: str, *, root: Path | None = None, limit: int | None = None) -> DataSet:
    """Load the data set called ``text``: a source's name, or ``name:argument`` (such as ``folder:PATH``).

    ``root`` is the cache folder for downloads, by default $QUADNAS_HOME or ~/.quadnas. ``limit`` keeps
    that many training images (held-out ones included), the first of a fixed stratified order; the test split
    stays whole. Raises ConfigError (unknown, missing), DataError (corrupt), MachineError (no network).
    """
    from quadnas.data.order import stratified_order  # noqa: PLC0415

    source, argument = _parse(text)
    source.check(argument)
    pools = source.load(argument, root or own_home())
    order = stratified_order(pools.train.labels, (f"held-out/{i}" for i in range(len(pools.train))))
    if limit is not None:
        order = order[: max(0, limit)]
    if len(order) < 2 * len(pools.classes):
        raise ConfigError(
            f"{len(order)} training images for the {len(pools.classes)} classes of {text}: "
            "at least two per class are needed; give more images, or a larger train_images"
        )
    held_out = round(len(order) * HELD_OUT_SHARE)
    return DataSet(
        name=text,
        classes=pools.classes,
        training=pools.train.subset(order),
        train=pools.train.subset(order[held_out:]),
        held_out=pools.train.subset(order[:held_out]),
        test=pools.test,
        default_train_size=pools.default_train_size,
        demonstration=pools.demonstration,
        note=pools.note,
    )


def _parse(text: str) -> tuple[Source, str | None]:
    name, colon, argument = text.partition(":")
    if colon and not argument:
        raise ConfigError(f"{text!r} ends in a colon; give a path after it, such as {text}./images")
    return SOURCES[name], argument or None
