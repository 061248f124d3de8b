"""The ProxylessNAS strategy against its published equations, and without the defects of its released code."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.blocks.base import BLOCKS, Block, Ports
from quadnas.data.base import Batch
from quadnas.latency.kernels import Kernel, Operator
from quadnas.network import Network
from quadnas.ops.residual import Residual
from quadnas.search.objective import architecture_loss
from quadnas.search.problem import Problem
from quadnas.search.strategies.proxyless import Proxyless
from tests.toy import taps_ms, toy_problem, toy_space


def strategy(**settings: Any) -> Proxyless:
    torch.manual_seed(0)
    return Proxyless(toy_problem(**settings))


def step(
    search: Proxyless, seed: int = 0, *, multiplier: float = 0.0, problem: Problem | None = None
) -> None:
    """One architecture step under the one-sided multiplier and a limit of 1 ms."""
    bounds = (problem or toy_problem()).bounds

    def loss(task: Tensor, probabilities: Tensor) -> Tensor:
        return architecture_loss("multiplier", task, bounds.expected(probabilities), 1.0, multiplier)

    search.update_architecture(iter([batch(seed)]), generator(seed), loss)


def batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(torch.randn(8, 3, 32, 32, generator=generator), torch.randint(10, (8,), generator=generator))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_active_path_equals_the_plain_network() -> None:
    search = strategy()
    problem = toy_problem()
    for seed in range(3):
        path = [int(i) for i in np.random.default_rng(seed).integers(0, 7, 4)]
        network = Network(problem.space.layers(path, 10))
        search.inherit(network, path)
        images = batch(seed).images
        assert torch.equal(network(images), search.supernet(images, path))
        assert not any("gate" in name or "alpha" in name for name in network.state_dict())


def two_path_by_hand(search: Proxyless, data: Batch, pairs: list[tuple[int, int]]) -> Tensor:
    """dL/dalpha by running both candidates of a slot with real gates and finite differences on the gates."""
    alpha = search.alpha.detach()
    gradient = torch.zeros_like(alpha)

    def loss(gates: Tensor) -> float:
        with torch.no_grad():
            return F.cross_entropy(search.supernet.gated(data.images, pairs, gates), data.labels).item()

    one = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(len(pairs), 1)
    for slot, pair in enumerate(pairs):
        q = alpha[slot, list(pair)].softmax(0)
        slopes = []
        for j in range(2):
            up, down = one.clone(), one.clone()
            up[slot, j] += 1e-4
            down[slot, j] -= 1e-4
            slopes.append((loss(up) - loss(down)) / 2e-4)
        for i in range(2):
            for j in range(2):
                gradient[slot, pair[i]] += slopes[j] * q[j] * (float(i == j) - q[i])
    return gradient


def test_architecture_gradient_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    search = strategy()
    search.supernet.double()
    data = batch()
    data = Batch(data.images.double(), data.labels)
    pairs = [(0, 6), (6, 3), (5, 1), (2, 4)]  # an identity (6) both active and idle
    monkeypatch.setattr(search, "_sample_pairs", lambda _: torch.tensor(pairs))
    # make the draw of the active candidate certain, so that the pairs keep their order
    monkeypatch.setattr(torch, "multinomial", lambda p, *_, **__: torch.zeros(len(p), 1, dtype=torch.long))
    expected = two_path_by_hand(search, data, pairs)
    seen: list[Tensor] = []
    monkeypatch.setattr(search.optimizer, "step", lambda: seen.append(search.alpha.grad.clone()))  # type: ignore[union-attr]
    search.update_architecture(iter([data]), generator(0), lambda task, _: task)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-9)
    assert (seen[0][0, 6].abs() > 0) and (seen[0][1, 6].abs() > 0)  # the identity gets its gradient


def test_only_the_sampled_pair_moves_and_the_mass_of_the_others_stays() -> None:
    search = strategy()
    for seed in range(5):
        before = search.probabilities().copy()
        step(search, seed, multiplier=0.5)
        change = np.abs(search.probabilities() - before) > 1e-12
        assert (change.sum(axis=1) == 2).all()


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("multiplier", lambda ce, ms: ce + 0.7 * ms / 20),
        ("mul_log", lambda ce, ms: 0.2 * ce * (np.log(ms) / np.log(20)) ** 0.3),
        ("add_linear", lambda ce, ms: ce + 0.1 * (ms - 20) / 20),
    ],
)
def test_latency_losses_are_the_published_forms(form: Any, expected: Any) -> None:
    task, ms = torch.tensor(1.7, dtype=torch.float64), torch.tensor(31.0, dtype=torch.float64)
    assert architecture_loss(form, task, ms, 20.0, 0.7).item() == pytest.approx(
        expected(1.7, 31.0), rel=1e-12
    )


def test_the_latency_term_favours_the_faster_of_two_equal_candidates() -> None:
    """Candidates whose outputs are equal differ in latency alone: the expensive one must lose."""
    search = strategy(limit_ms=1.0, schedule={"architecture_rate": 0.1})
    for module in search.supernet.modules():
        if isinstance(module, Residual) and module.scale is not None:
            nn.init.zeros_(module.scale)
    for seed in range(60):
        step(search, seed, multiplier=10.0)
    labels = toy_problem().space.slots[0].labels
    for row in search.probabilities():
        assert row[labels.index("identity")] > row[labels.index("quadra-k3-e2")]
        assert row[labels.index("quadra-k3-e2")] > row[labels.index("quadra-k7-e4")]


def test_warming_up_samples_every_candidate_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    search = strategy()
    with torch.no_grad():
        search.alpha[:, 0] = 5.0
    counts = torch.zeros(4, 7)
    paths: list[Sequence[int]] = []

    def record(images: Tensor, path: Sequence[int]) -> Tensor:
        paths.append(path)
        return torch.zeros(len(images), 10)

    monkeypatch.setattr(search.supernet, "forward", record)
    for number in range(3500):
        next(search.losses(batch(), F.cross_entropy, generator(number), warming_up=True))
    for path in paths:
        counts[torch.arange(4), torch.tensor(path)] += 1
    # 500 expected per candidate, standard deviation 20.7
    assert (counts - 500).abs().max() < 5 * 20.7


def test_weights_do_not_move_in_an_architecture_step() -> None:
    search = strategy()
    before = {name: value.clone() for name, value in search.supernet.state_dict().items()}
    step(search, 0, multiplier=1.0)
    for name, value in search.supernet.state_dict().items():
        assert torch.equal(before[name], value)
    assert all(p.requires_grad and p.grad is None for p in search.supernet.parameters())


class Normalized(Block):
    """A family with batch normalisation, whose statistics an architecture step could pollute."""

    momentum: float = 0.1

    def build(self, ports: Ports) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(ports.channels_in, ports.channels_out, 1),
            nn.BatchNorm2d(ports.channels_out, momentum=self.momentum),
        )

    def operators(self, ports: Ports, height: int, width: int) -> list[Operator]:
        kernel = Kernel("conv-bn", height, width, (ports.channels_in,), ports.channels_out)
        return [Operator(kernel, (-1,))]


def test_architecture_steps_leave_normalisation_statistics_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    list(BLOCKS)
    monkeypatch.setitem(BLOCKS._items, "normalized", Normalized)
    space = toy_space(candidates="[{block: normalized, momentum: [0.1, 0.2]}, {block: identity}]")
    problem = toy_problem(space=space, formula=lambda kernel: 1.0)
    search = Proxyless(problem)

    def statistics() -> list[Tensor]:
        return [buffer.clone() for name, buffer in search.supernet.named_buffers() if "running" in name]

    before = statistics()
    for seed in range(4):
        step(search, seed, multiplier=0.0, problem=problem)
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(), strict=True))
    for seed in range(4):
        next(search.losses(batch(), F.cross_entropy, generator(seed), warming_up=True))
    assert not all(torch.equal(a, b) for a, b in zip(before, statistics(), strict=True))


def test_a_candidate_without_a_price_is_never_sampled() -> None:
    def no_sevens(kernel: Kernel) -> float | None:
        return None if kernel.kernel == 7 else taps_ms(kernel)

    torch.manual_seed(0)
    problem = toy_problem(formula=no_sevens)
    search = Proxyless(problem)
    refused = [i for i, label in enumerate(problem.space.slots[0].labels) if "k7" in label]
    for seed in range(30):
        step(search, seed, multiplier=0.5)
        pairs = search._sample_pairs(generator(seed))
        assert not np.isin(pairs.numpy(), refused).any()
        assert (pairs[:, 0] != pairs[:, 1]).all()
    assert (search.probabilities()[:, refused] == 0).all()
    assert np.allclose(search.probabilities().sum(axis=1), 1)


def test_a_slot_with_one_candidate_needs_no_choice() -> None:
    torch.manual_seed(0)
    problem = toy_problem(space=toy_space(candidates="[{block: quadra, kernel: 3, expansion: 2}]"))
    search = Proxyless(problem)
    step(search, 0, multiplier=1.0, problem=problem)
    assert (search.probabilities() == 1).all()
