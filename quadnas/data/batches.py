"""Epochs of batches: each batch is a pure function of (seed, epoch, its index), so a run resumes anywhere."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from quadnas.data.augmentation import BASIC, Augmentation
from quadnas.data.base import Batch, Split
from quadnas.data.draws import WHOLE, Draws, Shard
from quadnas.data.mixing import erase, mix
from quadnas.data.order import epoch_order, stable_seed


def batches_per_epoch(images: int, batch_size: int) -> int:
    """Batches that ``minibatches`` yields: full ones only, unless the whole split is smaller than one."""
    return max(1, images // batch_size)


def minibatches(
    split: Split,
    batch_size: int,
    *,
    size: int,
    seed: int,
    epoch: int,
    start: int = 0,
    augmentation: Augmentation = BASIC,
    shard: Shard = WHOLE,
) -> Iterator[Batch]:
    """The batches ``start``, ``start`` + 1 ... of a shuffled epoch, at ``size`` x ``size`` pixels.

    An incomplete last batch is left out (batch normalisation cannot take one image), unless it is the only
    one. A ``shard`` gets its part of every batch of ``batch_size`` images: the parts in order of rank are
    the batch, to the last bit. Raises DataError for an image that cannot be decoded, ConfigError if the parts
    cannot be equal.
    """
    order = epoch_order(seed, epoch, len(split))
    count = min(batch_size, len(split))
    positions = shard.of_batch(count, pairs=augmentation.mixes)

    def make(index: int) -> Batch:
        first = index * batch_size
        chosen = order[first + positions.start : first + positions.stop]
        draws = Draws(augmentation, stable_seed("augment", seed, epoch, index), count, positions)
        batch = split.batch(chosen, size=size, draws=draws)
        erase(batch.images, draws)
        return mix(batch, split.class_count, draws)

    return _ahead(make, range(start, batches_per_epoch(len(split), batch_size)), split.lookahead)


def evaluation_batches(split: Split, batch_size: int, *, size: int, shard: Shard = WHOLE) -> Iterator[Batch]:
    """Every image once, in the split's order, without augmentation; the last batch may be smaller.

    A ``shard`` gets its part of the split in batches of up to ``batch_size``, none if there is no image left.
    """
    part = shard.of_split(len(split))
    order = torch.arange(part.start, part.stop)

    def make(start: int) -> Batch:
        return split.batch(order[start : start + batch_size], size=size, draws=None)

    return _ahead(make, range(0, len(order), batch_size), split.lookahead)


def _ahead(make: Callable[[int], Batch], indices: range, depth: int) -> Iterator[Batch]:
    """Make the batches in order, up to ``depth`` of them in the background while the caller uses one."""
    if depth == 0:
        yield from map(make, indices)
        return
    pending: deque[Future[Batch]] = deque()
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    try:
        for index in indices:
            pending.append(worker.submit(make, index))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        worker.shutdown(cancel_futures=True)
