"""Statistics of batch normalisation for weights that were trained in another network."""

from itertools import islice

from torch import nn
from torch.optim.swa_utils import update_bn

from quadnas.data.augmentation import NO_AUGMENTATION
from quadnas.data.base import Split
from quadnas.training.loop import batch_stream

BATCHES = 50


def recompute_statistics(network: nn.Module, split: Split, *, batch_size: int, size: int, seed: int) -> None:
    """Replace the running statistics by the means over ``BATCHES`` training batches of ``size`` pixels.

    In a supernet they mix all paths that were sampled. Does nothing without batch normalisation.
    Source: Once-for-All (arXiv 1908.09791), BigNAS (arXiv 2003.11142) section 3.
    """
    batches = batch_stream(split, batch_size, size=size, seed=seed, start=0, augmentation=NO_AUGMENTATION)
    update_bn((batch.images for batch in islice(batches, BATCHES)), network)
