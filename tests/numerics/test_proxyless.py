"""The ProxylessNAS strategies against their published equations, and without the defects of the released code."""

from collections.abc import Callable, Sequence
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
from quadnas.search.gated import Gated
from quadnas.search.objective import architecture_loss
from quadnas.search.problem import Problem
from quadnas.search.softmax import SoftmaxLearner
from quadnas.search.strategies.proxyless import Proxyless
from quadnas.search.strategies.proxyless_full import ProxylessFull
from quadnas.search.strategies.proxyless_reinforce import NETWORKS, ProxylessReinforce
from quadnas.search.strategies.swap import Swap
from quadnas.search.strategy import Moment
from quadnas.supernet.gates import frozen, gate_gradients
from quadnas.supernet.supernet import SupernetSlot
from tests.numerics.saved import saved_bytes
from tests.toy import taps_ms, toy_problem, toy_space

ALL = pytest.mark.parametrize("kind", [Proxyless, ProxylessFull, ProxylessReinforce])


def strategy(**settings: Any) -> Proxyless:
    torch.manual_seed(0)
    return Proxyless(toy_problem(**settings))


def step(search: Gated, seed: int = 0) -> None:
    """One architecture step by the task loss alone."""
    search.update_architecture(iter([batch(seed)]), generator(seed), lambda task, _: task)


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
        search.supernet.inherit(network, path)
        images = batch(seed).images
        assert torch.equal(network(images), search.supernet(images, path))
        assert not any("gate" in name or "alpha" in name for name in network.state_dict())


def by_hand(search: Gated, data: Batch, path: Sequence[int], asked: Tensor) -> Tensor:
    """dL/dalpha by mixing the outputs of candidates with real gates, and finite differences on the gates."""
    alpha = search.alpha.detach()
    gradient = torch.zeros_like(alpha)

    def loss(gates: Tensor) -> float:
        rows = iter(gates)
        x = data.images
        for position in search.supernet.positions:
            if isinstance(position, SupernetSlot):
                row = next(rows)
                x = sum((row[k] * position(x, k) for k in range(7) if row[k] != 0), torch.zeros(()))
            else:
                x = position(x)
        return F.cross_entropy(x, data.labels).item()

    with torch.no_grad(), frozen(search.supernet):
        one = F.one_hot(torch.tensor(path), 7).double()
        for slot, row in enumerate(asked):
            sampled = row.nonzero()[:, 0].tolist()
            q = alpha[slot, sampled].softmax(0)
            for j, share in zip(sampled, q, strict=True):
                up, down = one.clone(), one.clone()
                up[slot, j] += 1e-4
                down[slot, j] -= 1e-4
                slope = (loss(up) - loss(down)) / 2e-4
                for i, own in zip(sampled, q, strict=True):
                    gradient[slot, i] += slope * share * (float(i == j) - own)
    return gradient


def seen_gradient(search: Gated, data: Batch, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What an architecture step without latency term gives the optimiser."""
    seen: list[Tensor] = []
    monkeypatch.setattr(search.optimizer, "step", lambda: seen.append(search.alpha.grad.clone()))  # type: ignore[union-attr]
    search.update_architecture(iter([data]), generator(0), lambda task, _: task)
    return seen[0]


def uneven(search: Gated) -> Batch:
    """Double precision, uneven probabilities, and a batch of images."""
    search.supernet.double()
    with torch.no_grad():
        search.alpha.copy_(torch.randn(4, 7, generator=generator(1), dtype=torch.float64))
    data = batch()
    return Batch(data.images.double(), data.labels)


def test_two_gates_have_the_published_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    search = strategy()
    data = uneven(search)
    pairs = torch.tensor([(0, 6), (6, 3), (5, 1), (2, 4)])  # an identity (6) both active and idle
    monkeypatch.setattr(search, "_sample_pairs", lambda _: pairs)
    # make the draw of the active candidate certain, so that it is the first
    monkeypatch.setattr(torch, "multinomial", lambda p, *_, **__: torch.zeros(len(p), 1, dtype=torch.long))
    expected = by_hand(search, data, pairs[:, 0].tolist(), torch.zeros(4, 7).scatter(1, pairs, 1).bool())
    seen = seen_gradient(search, data, monkeypatch)
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-9)
    assert (seen[0, 6].abs() > 0) and (seen[1, 6].abs() > 0)  # the identity gets its gradient


def test_full_gates_have_the_published_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    search = ProxylessFull(toy_problem())
    data = uneven(search)
    path = [0, 6, 6, 4]
    monkeypatch.setattr(search, "_draw", lambda _: torch.tensor(path))
    expected = by_hand(search, data, path, torch.ones(4, 7).bool())
    seen = seen_gradient(search, data, monkeypatch)
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-9)
    assert (seen != 0).all()


def test_gates_keep_the_activations_of_one_path() -> None:
    """The rivals run when the graph is gone, and none of them with a gradient."""
    torch.manual_seed(0)
    search = ProxylessFull(toy_problem())
    supernet, images, path = search.supernet, batch().images, [0, 6, 5, 4]
    alone = saved_bytes(lambda: supernet(images, path).sum(), supernet.parameters())
    kept: list[int] = []
    graphs: list[bool] = []
    for module in supernet.modules():
        if isinstance(module, SupernetSlot):
            module.register_forward_hook(lambda _m, _x, output: graphs.append(output.requires_grad))

    def loss(logits: Tensor) -> Tensor:
        graphs.append(True)
        return logits.sum()

    def run() -> Tensor:
        gate_gradients(supernet, images, path, torch.ones(4, 7).bool(), loss)
        return images.new_ones((), requires_grad=True) * 1

    kept.append(saved_bytes(run, supernet.parameters()))
    assert kept[0] <= alone
    # the path's four slots, of which the first begins the graph; the loss; then 4 x 6 rivals
    assert graphs == [False, True, True, True, True, *[False] * 24]


def test_the_reinforce_gradient_is_that_of_the_expected_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the sum over all 9 networks; the baseline holds a part of each reward, which shrinks the mean."""
    space = toy_space(
        depths=(1, 1), candidates="[{block: quadra, kernel: [3, 5], expansion: 2}, {block: identity}]"
    )
    limit_ms = 0.1
    problem = toy_problem(limit_ms, space=space)
    assert not problem.unlimited
    torch.manual_seed(0)
    search = ProxylessReinforce(problem)
    with torch.no_grad():
        search.alpha.copy_(torch.tensor([[0.3, -0.4, 0.0], [0.0, 0.8, -0.2]]))
    right = {(i, j): (2 * i + 3 * j) % 9 for i in range(3) for j in range(3)}  # of 8 images, at most 8

    def forward(images: Tensor, path: Sequence[int]) -> Tensor:
        labels = torch.where(
            torch.arange(8) < right[path[0], path[1]], batch().labels, (batch().labels + 1) % 10
        )
        return F.one_hot(labels, 10).float()

    monkeypatch.setattr(search.supernet, "forward", forward)
    alpha = search.alpha.detach().clone().requires_grad_()
    log_p = alpha.log_softmax(1)
    expected_reward = sum(
        (log_p[0, i] + log_p[1, j]).exp() * hits / 8 * (limit_ms / problem.bounds.of([i, j])) ** 0.1
        for (i, j), hits in right.items()
    )
    assert isinstance(expected_reward, Tensor)
    (exact,) = torch.autograd.grad(expected_reward, alpha)

    seen: list[Tensor] = []
    monkeypatch.setattr(search.optimizer, "step", lambda: seen.append(-search.alpha.grad.clone()))  # type: ignore[union-attr]
    for seed in range(1000):
        search.baseline = torch.tensor(0.3, dtype=torch.float64)
        search.update_architecture(iter([batch()]), generator(seed), lambda task, _: task)
    draws = torch.stack(seen)
    shrunk = (1 - 0.99 / NETWORKS) * exact
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - shrunk).abs() < 4 * error).all()
    assert (exact.abs() > 8 * error).any(), "the test could not tell a gradient from none"


def test_the_baseline_starts_at_the_first_mean_and_follows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    search = ProxylessReinforce(
        toy_problem()
    )  # every network is within the limit: the reward is the accuracy
    hits = iter([8] * NETWORKS + [4] * NETWORKS)

    def forward(images: Tensor, path: Sequence[int]) -> Tensor:
        labels = batch().labels
        return F.one_hot(torch.where(torch.arange(8) < next(hits), labels, (labels + 1) % 10), 10).float()

    monkeypatch.setattr(search.supernet, "forward", forward)
    step(search, 0)
    assert search.baseline.item() == 1.0
    assert search.alpha.grad is not None and (search.alpha.grad == 0).all()
    step(search, 0)
    assert search.baseline.item() == pytest.approx(0.01 * 1.0 + 0.99 * 0.5)


def test_only_the_sampled_pair_moves_and_the_mass_of_the_others_stays() -> None:
    torch.manual_seed(0)
    search = Proxyless(tight_problem())
    for seed in range(5):
        search.hold()
        before = search.probabilities().copy()
        step(search, seed)
        change = np.abs(search.probabilities() - before) > 1e-12
        assert (change.sum(axis=1) == 2).all()


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("mul_log", lambda ce, ms: 0.2 * ce * (np.log(ms) / np.log(20)) ** 0.3),
        ("add_linear", lambda ce, ms: ce + 0.1 * (ms - 20) / 20),
    ],
)
def test_latency_losses_are_the_published_forms(form: Any, expected: Any) -> None:
    task, ms = torch.tensor(1.7, dtype=torch.float64), torch.tensor(31.0, dtype=torch.float64)
    assert architecture_loss(form, task, ms, 20.0).item() == pytest.approx(expected(1.7, 31.0), rel=1e-12)


@ALL
def test_the_latency_term_favours_the_faster_of_two_equal_candidates(kind: type[Gated]) -> None:
    """Candidates whose outputs are equal differ in latency alone: the expensive one must lose."""
    torch.manual_seed(0)
    search = kind(tight_problem(schedule={"architecture_rate": 0.1}))
    for module in search.supernet.modules():
        if isinstance(module, Residual) and module.scale is not None:
            nn.init.zeros_(module.scale)
    for seed in range(60):
        step(search, seed)
        search.hold()
    labels = toy_problem().space.slots[0].labels
    for row in search.probabilities():
        assert row[labels.index("identity")] > row[labels.index("quadra-k3-e2")]
        assert row[labels.index("quadra-k3-e2")] > row[labels.index("quadra-k7-e4")]


def tight_problem(**settings: Any) -> Problem:
    low, high = toy_problem().bounds.range
    return toy_problem(limit_ms=low + 0.2 * (high - low), **settings)


@pytest.mark.parametrize("kind", [Proxyless, ProxylessFull, Swap])
def test_the_expected_latency_meets_a_limit_that_binds_and_the_scores_do_not_feel_it(
    kind: Callable[[Problem], SoftmaxLearner],
) -> None:
    torch.manual_seed(0)
    problem = tight_problem()
    search = kind(problem)
    scores = search.scores()
    held = search.hold()
    assert held is not None
    assert held[0] > 0
    expected_ms = problem.bounds.expected(torch.from_numpy(search.probabilities())).item()
    assert expected_ms == pytest.approx(problem.limit_ms, rel=1e-5)
    assert np.array_equal(search.scores(), scores)
    assert kind(toy_problem()).hold() == (0.0,)

    other = kind(problem)
    other.load_state({name: value.clone() for name, value in search.state().items()})
    assert np.array_equal(other.probabilities(), search.probabilities())


def test_published_latency_losses_and_rewards_have_no_multipliers() -> None:
    for search in (ProxylessReinforce(tight_problem()), Proxyless(tight_problem(latency_loss="add_linear"))):
        before = search.probabilities()
        assert search.hold() is None
        assert np.array_equal(search.probabilities(), before)


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
        next(search.losses(batch(), F.cross_entropy, Moment(number, warming_up=True)))
    for path in paths:
        counts[torch.arange(4), torch.tensor(path)] += 1
    # 500 expected per candidate, standard deviation 20.7
    assert (counts - 500).abs().max() < 5 * 20.7


@ALL
def test_weights_do_not_move_in_an_architecture_step(kind: type[Gated]) -> None:
    torch.manual_seed(0)
    search = kind(toy_problem())
    before = {name: value.clone() for name, value in search.supernet.state_dict().items()}
    step(search, 0)
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


@ALL
def test_architecture_steps_leave_normalisation_statistics_alone(
    kind: Callable[[Problem], Gated], monkeypatch: pytest.MonkeyPatch
) -> None:
    list(BLOCKS)
    monkeypatch.setitem(BLOCKS._items, "normalized", Normalized)
    space = toy_space(candidates="[{block: normalized, momentum: [0.1, 0.2]}, {block: identity}]")
    problem = toy_problem(space=space, formula=lambda kernel: 1.0)
    search = kind(problem)

    def statistics() -> list[Tensor]:
        return [buffer.clone() for name, buffer in search.supernet.named_buffers() if "running" in name]

    before = statistics()
    for seed in range(4):
        step(search, seed)
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(), strict=True))
    for seed in range(4):
        next(search.losses(batch(), F.cross_entropy, Moment(seed, warming_up=True)))
    assert not all(torch.equal(a, b) for a, b in zip(before, statistics(), strict=True))


def test_a_candidate_without_a_price_is_never_sampled() -> None:
    def no_sevens(kernel: Kernel) -> float | None:
        return None if kernel.kernel == 7 else taps_ms(kernel)

    torch.manual_seed(0)
    problem = toy_problem(formula=no_sevens)
    search = Proxyless(problem)
    refused = [i for i, label in enumerate(problem.space.slots[0].labels) if "k7" in label]
    for seed in range(30):
        step(search, seed)
        pairs = search._sample_pairs(generator(seed))
        assert not np.isin(pairs.numpy(), refused).any()
        assert (pairs[:, 0] != pairs[:, 1]).all()
    assert (search.probabilities()[:, refused] == 0).all()
    assert np.allclose(search.probabilities().sum(axis=1), 1)


@ALL
def test_a_slot_with_one_candidate_needs_no_choice(kind: type[Gated]) -> None:
    torch.manual_seed(0)
    problem = toy_problem(space=toy_space(candidates="[{block: quadra, kernel: 3, expansion: 2}]"))
    search = kind(problem)
    step(search, 0)
    assert (search.probabilities() == 1).all()
