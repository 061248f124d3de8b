"""The training loop, its recipe and its state, on problems small enough to check by hand."""

import itertools
from typing import Literal

import pytest
import torch
from torch import nn

from quadnas.data.augmentation import BASIC
from quadnas.data.base import Batch, load_data
from quadnas.data.batches import batches_per_epoch, minibatches
from quadnas.errors import ConfigError
from quadnas.network import Network
from quadnas.training.evaluation import evaluate
from quadnas.training.loop import Learner, StepReport, batch_stream, train
from quadnas.training.recipe import Recipe
from tests.toy import toy_space


def test_learning_rate_rises_over_a_tenth_and_falls_as_a_half_cosine() -> None:
    recipe = Recipe(rate=1.0, final_rate=0.0)
    rates = [recipe.learning_rate(step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert max(rates) == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[-1] < 1e-3
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_the_published_rates() -> None:
    """ImageNet's 1281167 images for 300 epochs at batch 1024: 1e-3 after 20 epochs, 1e-6 in the end."""
    recipe = Recipe(batch_size=1024, rate=4e-3, rate_batch=4096, warmup_share=20 / 300)
    per_epoch = 1281167 // 1024
    steps = 300 * per_epoch
    rates = [recipe.learning_rate(step, steps) for step in (0, 20 * per_epoch - 1, 160 * per_epoch, steps)]
    assert rates == pytest.approx([1e-3 / (20 * per_epoch), 1e-3, (1e-3 + 1e-6) / 2, 1e-6])


def test_biases_and_vectors_are_not_decayed() -> None:
    network = Network(toy_space(depths=(1, 1)).layers((5, 5), 10))
    decayed, kept = Recipe(weight_decay=0.3).optimizer(network).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert all(names[id(p)].endswith("weight") and p.ndim > 1 for p in decayed["params"])
    assert all(names[id(p)].endswith("bias") or p.ndim == 1 for p in kept["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def tiny() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))


def batches(count: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [Batch(torch.randn(6, 3, 2, 2, generator=generator), torch.arange(6) % 3) for _ in range(count)]


def test_steps_are_those_of_the_plain_formula() -> None:
    """AdamW with clipping and smoothing, against the loop written out with torch's own parts."""
    recipe = Recipe(rate=0.1, clip_norm=0.5, label_smoothing=0.2)
    ours, plain = tiny(), tiny()
    reports: list[StepReport] = []
    train(Learner(ours, recipe, 0), iter(batches(5)), (0, 5, 5), reports.append)
    optimizer = recipe.optimizer(plain)
    for step, batch in enumerate(batches(5)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate(step, 5)
        log_p = plain(batch.images).log_softmax(1)
        target = torch.full_like(log_p, 0.2 / 3).scatter_add(
            1, batch.labels[:, None], torch.full((6, 1), 0.8)
        )
        loss = -(target * log_p).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad for p in plain.parameters() if p.grad is not None]
        norm = sum(g.square().sum().item() for g in gradients) ** 0.5
        for g in gradients:
            g.mul_(min(1.0, 0.5 / norm))
        optimizer.step()
        assert reports[step].loss == pytest.approx(loss.item(), rel=1e-5)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_sgd_by_hand(momentum: float) -> None:
    """Nesterov: v <- m v + d and w <- w - r (d + m v), where d is the gradient with the decay of matrices."""
    recipe = Recipe(algorithm="sgd", betas=(momentum, 0.0), weight_decay=0.3)
    ours, plain = tiny(), tiny()
    optimizer = recipe.optimizer(ours)
    velocities = [torch.zeros_like(p) for p in plain.parameters()]
    for batch in batches(4):
        for module in (ours, plain):
            module.zero_grad()
            nn.functional.cross_entropy(module(batch.images), batch.labels).backward()
        optimizer.step()
        with torch.no_grad():
            for p, v in zip(plain.parameters(), velocities, strict=True):
                assert p.grad is not None
                d = p.grad + (0.3 * p if p.ndim > 1 else 0.0)
                v.mul_(momentum).add_(d)
                p.sub_(recipe.peak_rate * (d + momentum * v))
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("algorithm", ["adamw", "sgd"])
def test_weights_of_a_path_begin_to_move_when_it_is_first_taken(algorithm: Literal["adamw", "sgd"]) -> None:
    paths = nn.ModuleList([tiny(), tiny()])
    optimizer = Recipe(algorithm=algorithm).optimizer(paths)
    before = [p.detach().clone() for p in paths[1].parameters()]
    for number, batch in zip((0, 0, 1), batches(3), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, paths[1].parameters(), strict=True))
        optimizer.zero_grad()
        paths[number](batch.images).square().sum().backward()
        optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, paths[1].parameters(), strict=True))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(bad: float) -> None:
    network = tiny()
    data = batches(3)
    data[2].images[0] = bad
    recipe = Recipe()
    after_two = []
    with pytest.raises(ConfigError, match=r"step 3 with learning rate .* lower rate"):
        train(
            Learner(network, recipe, 0), iter(data), (0, 3, 3),
            lambda _: after_two.append([p.detach().clone() for p in network.parameters()]),
        )  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(after_two[-1], network.parameters(), strict=True))


@pytest.mark.parametrize("algorithm", ["adamw", "sgd"])
def test_the_state_goes_through_tensors_unchanged(algorithm: Literal["adamw", "sgd"]) -> None:
    first, second = (
        Learner(tiny(), Recipe(algorithm=algorithm, ema_decay=0.5), 0, ema_decay=0.5) for _ in range(2)
    )
    data = batches(6)
    train(first, iter(data[:3]), (0, 3, 6), lambda _: None)
    stored = {name: tensor.clone() for name, tensor in first.state().items()}
    second.load_state({**stored, "strategy/alpha": torch.zeros(1)})
    for learner in (first, second):
        train(learner, iter(data[3:]), (3, 6, 6), lambda _: None)
    assert all(torch.equal(value, second.state()[name]) for name, value in first.state().items())


def test_the_stream_can_start_at_any_batch() -> None:
    split = load_data("digits").train
    per_epoch = batches_per_epoch(len(split), 256)
    assert per_epoch == len(split) // 256
    epochs = [list(minibatches(split, 256, size=8, seed=3, epoch=epoch)) for epoch in range(2)]
    flat = [batch for epoch in epochs for batch in epoch]
    for start in (0, 1, per_epoch - 1, per_epoch, per_epoch + 2):
        stream = batch_stream(split, 256, size=8, seed=3, start=start, augmentation=BASIC)
        for expected in flat[start : start + 3]:
            found = next(stream)
            assert torch.equal(found.images, expected.images)
            assert torch.equal(found.labels, expected.labels)


def test_evaluation_counts_every_image_once() -> None:
    split = load_data("digits").test

    class Constant(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([5.0] + 9 * [0.0]).repeat(len(images), 1)

    score = evaluate(Constant(), split, size=8)
    zeros = int((split.labels == 0).sum())
    assert score.images == len(split) == 359
    assert score.accuracy == zeros / 359
    log_sum = torch.tensor([5.0] + 9 * [0.0]).logsumexp(0).item()
    assert score.loss == pytest.approx(log_sum - 5 * zeros / 359)
