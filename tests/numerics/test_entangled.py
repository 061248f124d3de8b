"""Entangled weights: which candidates hold which weights in common, and that they train and save as one."""

import random

import pytest
import torch
from torch import nn

from quadnas.network import Network
from quadnas.supernet.entangled import EntangledSupernet
from quadnas.supernet.supernet import Supernet, SupernetSlot
from quadnas.training.state import own_tensors, restore_tensors
from tests.toy import toy_space

MIXED = "[{block: quadra, kernel: [3, 5], expansion: [2, 4]}, {block: mbconv, kernel: [3, 7], expansion: 3}]"


def supernet(candidates: str | None = None, seed: int = 0) -> EntangledSupernet:
    space = toy_space(candidates=candidates) if candidates else toy_space()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return EntangledSupernet(space, 10)


def first_slot(net: Supernet) -> SupernetSlot:
    return next(module for module in net.positions if isinstance(module, SupernetSlot))


@pytest.mark.parametrize("candidates", [None, MIXED])
def test_every_path_equals_the_plain_network_that_inherits_it(candidates: str | None) -> None:
    shared = supernet(candidates).eval()
    space = toy_space(candidates=candidates) if candidates else toy_space()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for seed in range(6):
        path = space.sample(random.Random(seed))
        network = Network(space.layers(path, 10)).eval()
        shared.inherit(network, path)
        assert torch.equal(network(images), shared(images, path))


def test_candidates_that_differ_in_their_kernel_share_their_matrices_and_nothing_else() -> None:
    k3e2, k3e4, k5e2, k5e4, mobile3, mobile7 = (
        dict(c.named_parameters()) for c in first_slot(supernet(MIXED)).candidates
    )

    def common(first: dict[str, nn.Parameter], second: dict[str, nn.Parameter]) -> list[tuple[int, ...]]:
        return sorted(tuple(p.shape) for name, p in first.items() if p is second.get(name))

    assert common(k3e2, k5e2) == [(8, 16), (16, 8)]
    assert common(k3e4, k5e4) == [(8, 32), (32, 8)]
    assert common(mobile3, mobile7) == [(8, 24, 1, 1), (24, 8, 1, 1)]
    for first, second in ((k3e2, k3e4), (k3e2, k5e4), (k3e2, mobile3), (k5e4, mobile7)):
        assert common(first, second) == []


def test_a_step_trains_only_what_the_candidate_holds() -> None:
    slot, labels = first_slot(supernet()), toy_space().slots[0].labels
    x = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    slot(x, labels.index("quadra-k3-e2")).square().sum().backward()
    trained = {id(p) for p in slot.parameters() if p.grad is not None}
    assert trained == {id(p) for p in slot.candidates[labels.index("quadra-k3-e2")].parameters()}


def test_of_quadratic_candidates_three_share_each_mlp() -> None:
    """Six candidates of C channels: MLPs of 2 C x 2 C and 2 C x 4 C once each; kernels and vectors six times."""
    slot = first_slot(supernet())
    kernels = sum(2 * 3 * 8 * k * k for k in (3, 5, 7))
    vectors = 3 * sum((4 + 3 + 1 + 2) * 8 + e * 8 for e in (2, 4))
    assert sum(p.numel() for p in slot.parameters()) == 2 * 8 * 16 + 2 * 8 * 32 + kernels + vectors


def test_what_is_shared_is_saved_once_and_restored_everywhere() -> None:
    saved, fresh = supernet(seed=0), supernet(seed=1)
    tensors = {name: value.clone() for name, value in own_tensors(saved).items()}
    assert sum(t.numel() for t in tensors.values()) == sum(p.numel() for p in saved.parameters())
    restore_tensors(fresh, tensors)
    for (name, value), restored in zip(saved.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(value, restored), name
    with pytest.raises(RuntimeError, match="unexpected"):
        restore_tensors(fresh, {**tensors, "unexpected": torch.zeros(1)})
