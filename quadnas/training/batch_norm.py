"""Statistics of batch normalisation for weights that were trained in another network."""

from collections.abc import Callable, Iterator
from itertools import islice

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from quadnas.data.augmentation import NO_AUGMENTATION
from quadnas.data.base import Split
from quadnas.training.loop import batch_stream

BATCHES = 50


def recompute_statistics(
    network: nn.Module,
    split: Split,
    *,
    batch_size: int,
    size: int,
    seed: int,
    batches: int = BATCHES,
    after_batch: Callable[[], None] = lambda: None,
) -> None:
    """Replace the running statistics by the means over so many training batches of ``size`` pixels.

    In a supernet they mix all paths that were sampled. Does nothing without batch normalisation. Raises whatever
    ``after_batch`` raises.
    Source: Once-for-All (arXiv 1908.09791), BigNAS (arXiv 2003.11142) section 3.
    """
    stream = batch_stream(split, batch_size, size=size, seed=seed, start=0, augmentation=NO_AUGMENTATION)

    def images() -> Iterator[Tensor]:
        for batch in islice(stream, batches):
            yield batch.images
            after_batch()

    update_bn(images(), network)
