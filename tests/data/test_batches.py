"""Orders, epochs and resumption: every batch is a pure function of (seed, epoch, index)."""

import threading
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quadnas.data.augmentation import NO_AUGMENTATION
from quadnas.data.base import Batch, Split
from quadnas.data.batches import batches_per_epoch, evaluation_batches, minibatches
from quadnas.data.draws import Draws
from quadnas.data.memory import MemorySplit
from quadnas.data.normalization import Normalization
from quadnas.data.order import epoch_order, stable_seed, stratified_order
from quadnas.errors import DataError

PLAIN = Normalization((0.0,) * 3, (1.0,) * 3)


def numbered(count: int) -> MemorySplit:
    """Images of one colour whose label is that colour, so that every batch shows where it comes from."""
    colours = torch.arange(count)
    images = colours.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()
    return MemorySplit(labels=colours, class_count=count, normalization=PLAIN, images=images, flip=True)


def noise(count: int) -> MemorySplit:
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(256, (count, 3, 16, 16), generator=generator).to(torch.uint8)
    return MemorySplit(
        labels=torch.arange(count), class_count=count, normalization=PLAIN, images=images, flip=True
    )


@dataclass(frozen=True, eq=False)
class SlowSplit(Split):
    """Prepared in the background; ``made`` lists the first index of every batch that was asked for."""

    made: list[int] = field(default_factory=list)
    corrupt: int = -1
    lookahead = 2

    def batch(self, indices: torch.Tensor, *, size: int, draws: Draws | None) -> Batch:
        self.made.append(int(indices[0]))
        if self.corrupt in indices:
            raise DataError("this image is corrupt")
        return Batch(torch.zeros(len(indices), 3, size, size), self.labels[indices])

    def subset(self, indices: torch.Tensor) -> "SlowSplit":
        raise NotImplementedError

    def to(self, device: torch.device) -> "SlowSplit":
        raise NotImplementedError


def test_a_seed_is_the_head_of_the_published_sha256_of_the_name() -> None:
    # FIPS 180-2, appendix B.1: SHA-256("abc") begins ba7816bf 8f01cfea
    assert stable_seed("abc") == 0xBA7816BF8F01CFEA >> 1
    assert stable_seed("a", 1) == stable_seed("a/1") != stable_seed("a", 2)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80))
def test_every_prefix_of_a_stratified_order_has_the_overall_shares(labels: list[int]) -> None:
    tensor = torch.tensor(labels)
    order = stratified_order(tensor, (f"item {i}" for i in range(len(labels))))
    assert sorted(order.tolist()) == list(range(len(labels)))
    classes = set(labels)
    for length in range(len(labels) + 1):
        prefix = [labels[i] for i in order[:length].tolist()]
        for label in classes:
            share = labels.count(label) / len(labels)
            assert abs(prefix.count(label) - length * share) <= 0.5 + len(classes) / 2 * share + 1e-9


def test_a_stratified_order_depends_on_names_not_on_positions() -> None:
    labels, names = [0, 0, 0, 1, 1, 1], ["a", "b", "c", "d", "e", "f"]
    shuffled = [4, 2, 0, 5, 1, 3]
    straight = [names[i] for i in stratified_order(torch.tensor(labels), names)]
    again = stratified_order(torch.tensor([labels[i] for i in shuffled]), [names[i] for i in shuffled])
    renamed = stratified_order(torch.tensor(labels), [f"other {name}" for name in names])
    assert [names[shuffled[i]] for i in again] == straight
    assert [names[i] for i in renamed] != straight


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    orders = [epoch_order(seed, epoch, 50) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4
    batches = list(minibatches(numbered(50), 10, size=8, seed=0, epoch=0))
    assert torch.cat([b.labels for b in batches]).tolist() == orders[0].tolist()


@pytest.mark.parametrize(("count", "lengths"), [(25, [10, 10]), (20, [10, 10]), (7, [7])])
def test_training_drops_an_incomplete_last_batch_unless_it_is_the_only_one(
    count: int, lengths: list[int]
) -> None:
    batches = list(minibatches(numbered(count), 10, size=8, seed=3, epoch=0))
    assert [len(b.labels) for b in batches] == lengths
    assert batches_per_epoch(count, 10) == len(lengths)


def test_evaluation_shows_every_image_once_in_order() -> None:
    batches = list(evaluation_batches(numbered(25), 10, size=12))
    assert [len(b.labels) for b in batches] == [10, 10, 5]
    assert torch.cat([b.labels for b in batches]).tolist() == list(range(25))
    for images, labels in batches:
        assert images.shape[1:] == (3, 12, 12)
        torch.testing.assert_close(images, (labels / 255).view(-1, 1, 1, 1).expand_as(images))


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_an_epoch_resumed_in_the_middle_gives_the_same_batches(start: int) -> None:
    split = noise(50)
    whole = list(minibatches(split, 10, size=24, seed=5, epoch=2))
    torch.rand(17)
    before = torch.get_rng_state()
    rest = list(minibatches(split, 10, size=24, seed=5, epoch=2, start=start))
    assert torch.equal(before, torch.get_rng_state()), "the global random state must stay untouched"
    assert len(rest) == len(whole) - start
    for (images, labels), (images_again, labels_again) in zip(whole[start:], rest, strict=True):
        assert torch.equal(images, images_again)
        assert torch.equal(labels, labels_again)


def test_augmentation_differs_between_seeds_epochs_and_batches_and_can_be_off() -> None:
    split = noise(1).subset(torch.zeros(64, dtype=torch.int64))
    plain = split.batch(torch.arange(32), size=16, draws=None).images
    seen = [plain]
    for seed, epoch in [(0, 0), (0, 1), (1, 0)]:
        seen += [b.images for b in minibatches(split, 32, size=16, seed=seed, epoch=epoch)]
    assert len({images.numpy().tobytes() for images in seen}) == 7
    off = minibatches(split, 32, size=16, seed=0, epoch=0, augmentation=NO_AUGMENTATION)
    assert all(torch.equal(batch.images, plain) for batch in off)


def slow(corrupt: int = -1) -> SlowSplit:
    return SlowSplit(labels=torch.arange(20), class_count=20, normalization=PLAIN, corrupt=corrupt)


def test_background_work_keeps_the_order_and_runs_no_further_ahead_than_told() -> None:
    split = slow()
    seen = []
    for position, batch in enumerate(evaluation_batches(split, 2, size=4)):
        seen += batch.labels.tolist()
        assert len(split.made) <= position + 1 + SlowSplit.lookahead
    assert seen == list(range(20))


def test_background_work_ends_with_its_reader() -> None:
    split = slow()
    batches = evaluation_batches(split, 2, size=4)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert len(split.made) <= 1 + SlowSplit.lookahead
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_an_error_in_the_background_reaches_the_reader_after_the_good_batches() -> None:
    batches = evaluation_batches(slow(corrupt=5), 2, size=4)
    assert [next(batches).labels.tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(DataError, match="this image is corrupt"):
        next(batches)
