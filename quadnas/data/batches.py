"""Epochs of batches: each batch is a pure function of (seed, epoch, its index), so a run resumes anywhere."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from quadnas.data.base import Batch, Split
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
    augment: bool = True,
) -> Iterator[Batch]:
    """The batches ``start``, ``start`` + 1 ... of a shuffled epoch, at ``size`` x ``size`` pixels.

    An incomplete last batch is left out (batch normalisation cannot take one image), unless it is the only
    one. Raises DataError for an image that cannot be decoded.
    """
    order = epoch_order(seed, epoch, len(split))

    def make(index: int) -> Batch:
        generator = torch.Generator().manual_seed(stable_seed("augment", seed, epoch, index))
        chosen = order[index * batch_size : (index + 1) * batch_size]
        return split.batch(chosen, size=size, generator=generator if augment else None)

    return _ahead(make, range(start, batches_per_epoch(len(split), batch_size)), split.lookahead)


def evaluation_batches(split: Split, batch_size: int, *, size: int) -> Iterator[Batch]:
    """Every image once, in the split's order, without augmentation; the last batch may be smaller."""
    order = torch.arange(len(split))

    def make(start: int) -> Batch:
        return split.batch(order[start : start + batch_size], size=size, generator=None)

    return _ahead(make, range(0, len(split), batch_size), split.lookahead)


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
