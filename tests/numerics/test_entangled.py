"""Entangled weights: a candidate computes with the stated part of the shared weights, and trains just that."""

import random

import pytest
import torch
from torch import Tensor

from quadnas.network import Network
from quadnas.supernet.entangled import EntangledSlot, EntangledSupernet, part
from tests.toy import toy_space

MIXED = "[{block: quadra, kernel: [3, 5], expansion: [2, 4]}, {block: mbconv, kernel: [3, 7], expansion: 3}]"


def supernet(candidates: str | None = None) -> EntangledSupernet:
    space = toy_space(candidates=candidates) if candidates else toy_space()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EntangledSupernet(space, 10)


def test_a_kernel_gives_its_centre_and_a_matrix_its_first_rows_and_columns() -> None:
    kernel = torch.arange(3 * 2 * 49.0).view(3, 2, 1, 7, 7)
    assert torch.equal(part(kernel, torch.Size([3, 2, 1, 3, 3])), kernel[..., 2:5, 2:5])
    assert torch.equal(part(kernel, torch.Size([3, 2, 1, 5, 5])), kernel[..., 1:6, 1:6])
    matrix = torch.arange(32.0).view(8, 4)
    assert torch.equal(part(matrix, torch.Size([4, 4])), matrix[:4])
    assert torch.equal(part(matrix.T, torch.Size([4, 4])), matrix.T[:, :4])
    assert part(matrix, matrix.shape) is matrix


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


def test_candidates_of_a_family_share_their_matrices_and_nothing_else() -> None:
    slot = next(m for m in supernet(MIXED).positions if isinstance(m, EntangledSlot))
    # quadra: the quadratic kernel and two matrices; mbconv: expand, depthwise, project
    assert len(slot.shared) == 3 + 3
    shapes = sorted(tuple(weight.shape) for weight in slot.shared.values())
    assert shapes == sorted([(3, 8, 1, 5, 5), (32, 8), (8, 32), (24, 8, 1, 1), (24, 1, 7, 7), (8, 24, 1, 1)])
    assert all(p.ndim == 1 or p.shape == (3, 8) for p in slot.candidates.parameters())


def test_a_step_trains_only_the_part_that_the_candidate_has() -> None:
    shared = supernet()
    slot = next(m for m in shared.positions if isinstance(m, EntangledSlot))
    labels = toy_space().slots[0].labels
    x = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    slot(x, labels.index("quadra-k3-e2")).square().sum().backward()

    def outside(weight: Tensor, inside: Tensor) -> float:
        total = weight.grad.abs().sum() - inside.abs().sum()  # type: ignore[union-attr]
        return float(total)

    for name, weight in slot.shared.items():
        assert weight.grad is not None
        if weight.ndim == 5:
            inside = weight.grad[..., 2:5, 2:5]
        else:
            inside = weight.grad[:16] if weight.shape[0] == 32 else weight.grad[:, :16]
        assert inside.abs().sum() > 0 and outside(weight, inside) == pytest.approx(0, abs=1e-5), name
    assert slot.candidates[labels.index("quadra-k7-e4")].get_parameter("spatial.scale").grad is None


def test_a_supernet_is_hardly_larger_than_its_largest_path() -> None:
    space = toy_space((16, 32), (3, 3))
    largest = Network(space.layers([space.slots[0].labels.index("quadra-k7-e4")] * 6, 10))
    size = sum(p.numel() for p in EntangledSupernet(space, 10).parameters())
    vectors = size - sum(p.numel() for p in largest.parameters())
    # six quadratic candidates of every slot have their own vectors: 10 of C values and the inner bias of the MLP
    of_slot = {c: sum((4 + 3 + 1 + 2) * c - c + e * c for e in (2, 4, 2, 4, 2, 4)) for c in (16, 32)}
    assert 0 < vectors < 3 * sum(of_slot.values())
