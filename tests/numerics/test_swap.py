"""Swap probe, exact swaps and the strategy that works on them, against autograd by hand and brute force."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.data.base import Batch
from quadnas.search.strategies.swap import Swap
from quadnas.search.strategy import Moment
from quadnas.space.search_space import SearchSpace
from quadnas.supernet.entangled import EntangledSupernet
from quadnas.supernet.probe import SwapProbe
from quadnas.supernet.supernet import Supernet, SupernetSlot
from tests.numerics.swaps import swap_losses
from tests.toy import taps_ms, toy_problem, toy_space

MOBILE = "[{block: mbconv, kernel: [3, 5], expansion: [2, 3]}, {block: identity}]"
PATH, OTHERS = [0, 6, 3, 5], [6, 2, 3, 4]
"""In the third slot nothing is swapped."""


def supernet(space: SearchSpace | None = None) -> EntangledSupernet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EntangledSupernet(space or toy_space(), 10).double()


def batch(count: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, 32, 32, dtype=torch.float64, generator=generator)
    return Batch(images, torch.randint(10, (count,), generator=generator))


def by_hand(
    net: Supernet, data: Batch, path: Sequence[int], others: Sequence[int], images: int
) -> list[float]:
    """<dL/do, o_other - o_active> on images spread over the batch, by slot, from outputs kept as leaves."""
    changes = []
    for wanted in range(len(path)):
        x, slot = data.images.contiguous(memory_format=torch.channels_last), 0
        for position in net.positions:
            if not isinstance(position, SupernetSlot):
                x = position(x)
                continue
            before = x
            x = position(x, path[slot])
            if slot == wanted:
                with torch.no_grad():
                    difference = position(before, others[slot]) - x
                x = x.detach().requires_grad_()
                leaf = x
            slot += 1
        (gradient,) = torch.autograd.grad(F.cross_entropy(x, data.labels), leaf)
        scale = len(data.images) / images
        changes.append(scale * (gradient * difference)[:: len(data.images) // images][:images].sum().item())
    return changes


@pytest.mark.parametrize("images", [8, 3])
def test_the_probe_credits_what_autograd_gives(images: int) -> None:
    net, data = supernet(), batch()
    probe = SwapProbe(net, OTHERS, images)
    F.cross_entropy(probe(data.images, PATH), data.labels).backward()
    assert probe.changes().tolist() == pytest.approx(by_hand(net, data, PATH, OTHERS, images), rel=1e-6)


def test_a_probe_changes_neither_logits_nor_gradients_nor_statistics() -> None:
    data = batch()
    for space in (toy_space(), toy_space(candidates=MOBILE)):
        plain, probed = supernet(space), supernet(space)
        path, others = [0, 4, 2, 3], [4, 2, 1, 0]
        logits = plain(data.images, path)
        answer = SwapProbe(probed, others, 4)(data.images, path)
        assert torch.equal(logits, answer)
        for each in (logits, answer):
            F.cross_entropy(each, data.labels).backward()
        for (name, a), b in zip(plain.named_parameters(), probed.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None), name
            assert a.grad is None or b.grad is None or torch.equal(a.grad, b.grad), name
        for (name, kept), now in zip(plain.named_buffers(), probed.buffers(), strict=True):
            if "tracked" not in name:
                assert torch.equal(kept, now), name


def test_a_probe_without_a_swap_finds_no_change() -> None:
    data = batch()
    probe = SwapProbe(supernet(), PATH, 4)
    F.cross_entropy(probe(data.images, PATH), data.labels).backward()
    assert probe.changes().tolist() == [0.0] * 4


def test_the_scale_of_the_loss_does_not_scale_the_gains() -> None:
    """A scaled loss (fp16) and a share of a batch are what the training loop multiplies by before backward."""
    problem, data = toy_problem(), batch()
    found = []
    for factor in (1.0, 1024.0):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            search = Swap(problem)
        search.supernet.double()
        losses = search.losses(data, F.cross_entropy, Moment(1))
        for loss in losses:
            (factor * loss.value).backward()
        found.append(search.gains()[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=0)
    assert found[0].abs().max() > 0


@given(st.integers(0, 10_000), st.floats(0.05, 0.95), st.sampled_from([0.0, 1e-12, 0.1]))
@settings(max_examples=50, deadline=None)
def test_the_distribution_earns_what_the_linear_program_does_but_for_the_entropy(
    seed: int, share: float, error: float
) -> None:
    """The most that shares within the limit earn is a linear program; the softmax may give up T log n per slot."""
    low, high = toy_problem().bounds.range
    problem = toy_problem(limit_ms=low + share * (high - low))
    gains = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    search = Swap(problem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "gains", lambda: (gains, torch.full_like(gains, error)))
        search.update_architecture(iter(()), torch.Generator(), lambda task, _: task)
    search.hold()
    shares, costs = search.probabilities(), np.array(problem.bounds.rows)
    best = linprog(
        -gains.numpy().ravel(),
        A_ub=costs.reshape(1, -1), b_ub=[problem.limit_ms - problem.bounds.fixed],
        A_eq=np.kron(np.eye(4), np.ones(7)), b_eq=np.ones(4),
    )  # fmt: skip
    earned = (shares * gains.numpy()).sum()
    temperature = max(error / 10, gains.abs().max().item() / 1000)
    assert -best.fun - 4 * temperature * np.log(7) - 1e-4 <= earned <= -best.fun + 1e-4


@pytest.mark.parametrize("candidates", [None, MOBILE])
def test_exact_swaps_equal_one_forward_pass_each(candidates: str | None) -> None:
    space = toy_space(candidates=candidates) if candidates else toy_space()
    net, path = supernet(space), [1, 2, 0, 3]
    asked = torch.ones(4, len(space.slots[0].candidates), dtype=torch.bool)
    asked[1, 3] = False
    data = batch(16)
    halves = [Batch(data.images[:8], data.labels[:8]), Batch(data.images[8:], data.labels[8:])]
    before = {name: value.clone() for name, value in net.named_buffers()}
    found = swap_losses(net, halves, path, asked)
    assert all(
        torch.equal(before[name], value) for name, value in net.named_buffers() if "tracked" not in name
    )
    for slot in range(4):
        for candidate in range(asked.shape[1]):
            swapped = [*path[:slot], candidate, *path[slot + 1 :]]
            expected = (
                sum(F.cross_entropy(net(half.images, swapped), half.labels).item() for half in halves) / 2
            )
            if asked[slot, candidate]:
                assert found[slot, candidate].item() == pytest.approx(expected, rel=1e-12)
            else:
                assert found[slot, candidate].isnan()


def test_every_candidate_is_trained_and_probed_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_sevens(kernel: object) -> float | None:
        return None if kernel.kernel == 7 else taps_ms(kernel)  # type: ignore[attr-defined, arg-type]

    problem = toy_problem(formula=no_sevens)
    search = Swap(problem)
    priced = problem.bounds.priced
    trained, probed = torch.zeros(priced.shape), torch.zeros(priced.shape)
    rows = torch.arange(4)
    monkeypatch.setattr(search.supernet, "forward", lambda images, path: _count(trained, rows, path))
    for number in range(3000):
        next(search.losses(batch(), lambda *_: torch.zeros(()), Moment(number, warming_up=True)))
        others = search._others([0] * 4, torch.Generator().manual_seed(number))
        probed[rows, torch.tensor(others)] += 1
    assert (trained[~priced] == 0).all() and (probed[~priced] == 0).all()
    # a third of 4 slots, rounded up, is probed; in the others the active one stays
    assert probed[:, 1:].sum() == 3000 * 2
    # 375 expected of 4 candidates in half of the steps, deviation 18
    assert (trained[priced] == 3000 / 5).all()
    others_than_the_first = priced.clone()
    others_than_the_first[:, 0] = False
    assert (probed[others_than_the_first] - 375).abs().max() < 5 * 18


def _count(counts: Tensor, rows: Tensor, path: Sequence[int]) -> Tensor:
    counts[rows, torch.tensor(path)] += 1
    return torch.zeros(1, 10)


def digits() -> list[Batch]:
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None].sub_(8).div_(6).expand(-1, 3, -1, -1)
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images = F.interpolate(images, scale_factor=2.0)
    return [Batch(images[part], labels[part]) for part in order.split(64)[:-1]]


@pytest.mark.parametrize("useless", [False, True])
def test_gains_rank_candidates_as_exact_swaps_do(useless: bool) -> None:
    """Also where the large kernel is made useless: its quadratic half is switched off after the training."""
    space = toy_space((8, 16, 24), (2, 2, 2), stem_stride=2)
    problem = toy_problem(space=space)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        search = Swap(problem)
    batches, net, labels = digits(), search.supernet, space.slots[0].labels
    held_out, training = batches[:6], batches[6:]
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for step in range(330):
        optimizer.zero_grad()
        _propagate(search, training[step % len(training)], step, warming_up=True)
        optimizer.step()
    large = [labels.index(f"quadra-k7-{expansion}") for expansion in ("e2", "e4")]
    if useless:
        for slot in net.positions:
            if isinstance(slot, SupernetSlot):
                for number in large:
                    nn.init.zeros_(slot.candidates.get_submodule(str(number)).get_parameter("spatial.scale"))
    for step in range(400):
        _propagate(search, held_out[step % 6], 1000 + step, warming_up=False)
    gains, _ = search.gains()
    sampler = random.Random(0)
    paths = [space.sample(sampler) for _ in range(12)]
    exact = torch.stack([swap_losses(net, held_out, path, problem.bounds.priced) for path in paths]).mean(0)
    truth = exact.mean(1, keepdim=True) - exact
    assert spearmanr(gains.ravel(), truth.ravel()).statistic >= 0.7
    if useless:
        sound = [labels.index(f"quadra-k5-{expansion}") for expansion in ("e2", "e4")]
        lost, found = ((g[:, sound] - g[:, large]).mean(1) for g in (truth, gains))
        assert found.mean() > 0.5 * lost.mean() > 0
        assert (found[lost > 0.02] > 0).all()


def _propagate(search: Swap, data: Batch, step: int, *, warming_up: bool) -> None:
    for loss in search.losses(data, F.cross_entropy, Moment(step, warming_up=warming_up)):
        loss.value.backward()
