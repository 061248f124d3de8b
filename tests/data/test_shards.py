"""Several processes load a batch together: their parts are the batch, whatever is done to the images."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from quadnas.data.augmentation import Augmentation, RandAugment
from quadnas.data.base import Batch, Split, load_data
from quadnas.data.batches import evaluation_batches, minibatches
from quadnas.data.draws import Shard
from quadnas.data.files import FileSplit
from quadnas.data.memory import MemorySplit
from quadnas.data.normalization import Normalization
from quadnas.errors import ConfigError

EVERYTHING: dict[str, Any] = {"rand_augment": RandAugment(), "random_erasing": 0.5}
AUGMENTATIONS = {
    "none": Augmentation(crops="none", flip=False),
    "basic": Augmentation(),
    "resized and jittered": Augmentation(crops="resized", color_jitter=0.4, random_erasing=1.0),
    "mixup": Augmentation(mixup_alpha=0.8, **EVERYTHING),
    "cutmix": Augmentation(cutmix_alpha=1.0, **EVERYTHING),
    "paper": Augmentation(mixup_alpha=0.8, cutmix_alpha=1.0, **EVERYTHING),
}


def in_memory(count: int, channels: int) -> MemorySplit:
    generator = torch.Generator().manual_seed(11)
    return MemorySplit(
        labels=torch.arange(count) % 7,
        class_count=7,
        normalization=Normalization((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)),
        images=torch.randint(256, (count, channels, 13, 9), generator=generator).to(torch.uint8),
        flip=True,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> FileSplit:
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(3)
    for i in range(62):
        path = root / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    train = load_data(f"folder:{root}").training
    assert isinstance(train, FileSplit)
    return replace(train, workers=2)


def epoch(split: Split, augmentation: Augmentation, shard: Shard) -> Iterator[Batch]:
    return minibatches(split, 24, size=15, seed=2, epoch=1, augmentation=augmentation, shard=shard)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("kind", ["grey", "colour", "files"])
@pytest.mark.parametrize("world", [2, 3])
def test_the_parts_of_a_batch_in_order_of_rank_are_the_batch_bit_by_bit(
    name: str, kind: str, world: int, files: FileSplit
) -> None:
    split = files if kind == "files" else in_memory(50, 1 if kind == "grey" else 3)
    augmentation = AUGMENTATIONS[name]
    whole = list(epoch(split, augmentation, Shard()))
    parts = [list(epoch(split, augmentation, Shard(rank, world))) for rank in range(world)]
    assert len(whole) == 2
    for index, batch in enumerate(whole):
        assert [len(part[index].images) for part in parts] == [24 // world] * world
        assert torch.equal(torch.cat([part[index].images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part[index].labels for part in parts]), batch.labels)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_batches_differ_between_epochs_and_resume_anywhere(name: str, files: FileSplit) -> None:
    augmentation = AUGMENTATIONS[name]
    shard = Shard(1, 2)
    for split in (in_memory(50, 3), files):
        whole = list(epoch(split, augmentation, shard))
        rest = list(
            minibatches(split, 24, size=15, seed=2, epoch=1, start=1, augmentation=augmentation, shard=shard)
        )
        other = list(minibatches(split, 24, size=15, seed=2, epoch=0, augmentation=augmentation, shard=shard))
        assert torch.equal(whole[1].images, rest[0].images)
        assert torch.equal(whole[1].labels, rest[0].labels)
        assert not torch.equal(whole[1].images, other[1].images)


@pytest.mark.parametrize(
    ("batch_size", "world", "alpha", "multiple"), [(24, 5, 0.0, 5), (24, 24, 0.8, 48), (60, 3, 0.0, 3)]
)
def test_a_batch_without_equal_parts_is_refused_before_any_image_is_read(
    batch_size: int, world: int, alpha: float, multiple: int
) -> None:
    """The third is a split of 50 images, smaller than a batch."""
    count = min(batch_size, 50)
    with pytest.raises(ConfigError, match=f"{count} images .* {world} processes.*multiple of {multiple}"):
        minibatches(
            in_memory(50, 1),
            batch_size,
            size=8,
            seed=0,
            epoch=0,
            augmentation=Augmentation(mixup_alpha=alpha),
            shard=Shard(0, world),
        )


@given(st.integers(0, 300), st.integers(1, 17))
def test_the_parts_of_a_split_follow_each_other_and_differ_by_one_at_most(count: int, world: int) -> None:
    parts = [Shard(rank, world).of_split(count) for rank in range(world)]
    assert [index for part in parts for index in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("count", [1, 5, 26])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_image_is_evaluated_by_one_process(count: int, world: int) -> None:
    split = in_memory(count, 3)
    whole = list(evaluation_batches(split, 4, size=12))
    parts = [
        batch
        for rank in range(world)
        for batch in evaluation_batches(split, 4, size=12, shard=Shard(rank, world))
    ]
    assert all(1 <= len(batch.images) <= 4 for batch in parts)
    assert torch.equal(torch.cat([b.images for b in parts]), torch.cat([b.images for b in whole]))
    assert torch.equal(torch.cat([b.labels for b in parts]), split.labels)
