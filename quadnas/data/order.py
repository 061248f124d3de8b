"""Which image comes when: fixed stratified orders, shuffled epochs, and seeds derived by hashing."""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch


def stable_seed(*parts: str | int) -> int:
    """A seed of 63 bits from any names and numbers, the same on every machine and in every process."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stratified_order(labels: torch.Tensor, names: Iterable[str]) -> torch.Tensor:
    """A fixed order of (N,) labelled items in which every prefix has the classes in their overall shares.

    Within a class the order is that of the hashed names; the item of rank r among n is placed at
    (r + 1/2) / n of the whole, ties again by hash. Returns (N,) int64 indices.
    """
    hashes = np.array([stable_seed(name) for name in names], dtype=np.int64)
    by_class = labels.numpy()
    place = np.empty(len(hashes))
    for label in np.unique(by_class):
        members = np.flatnonzero(by_class == label)
        ranked = members[np.argsort(hashes[members], kind="stable")]
        place[ranked] = (np.arange(len(ranked)) + 0.5) / len(ranked)
    return torch.from_numpy(np.lexsort((hashes, place)))


def epoch_order(seed: int, epoch: int, n: int) -> torch.Tensor:
    """The shuffled order of ``n`` items in an epoch, (n,) int64: a pure function of its arguments."""
    generator = torch.Generator().manual_seed(stable_seed("order", seed, epoch))
    return torch.randperm(n, generator=generator)
