"""One step of the recipe, part by part, against closed forms and plain torch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.data.base import Batch
from quadnas.errors import ConfigError
from quadnas.network import Network
from quadnas.ops.drop_path import DropPath
from quadnas.training.loop import Learner, step_randomness, train
from quadnas.training.recipe import Recipe
from tests.training.toys import QUADRA, toy_spec


def linear() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))


def batch(count: int, seed: int = 1) -> Batch:
    """Images whose class can be read off their first pixels."""
    labels = torch.arange(count) % 3
    images = torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    images[torch.arange(count), labels, 0, 0] += 3.0
    return Batch(images, labels)


def learn(module: nn.Module, batches: list[Batch], **recipe: Any) -> Learner:
    chosen = Recipe(**recipe)
    learner = Learner(module, chosen, 0, ema_decay=chosen.ema_decay)
    train(learner, iter(batches), (0, len(batches), len(batches)), lambda _: None)
    return learner


@pytest.mark.parametrize("pieces", [2, 3, 7, 50])
def test_pieces_of_a_batch_make_the_step_of_the_whole(pieces: int) -> None:
    """Seven images cannot be divided evenly; every image weighs the same nevertheless."""
    batches = [batch(7, seed) for seed in range(4)]
    whole, divided = linear(), linear()
    learn(whole, batches)
    learn(divided, batches, gradient_accumulation=pieces)
    for a, b in zip(whole.parameters(), divided.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_only_a_piece_of_the_batch_runs_at_a_time() -> None:
    sizes = []
    module = linear()
    module.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    learn(module, [batch(6)], gradient_accumulation=3)
    assert sizes == [2, 2, 2]


def test_shares_of_classes_are_labels_too() -> None:
    hard = batch(6)
    soft = Batch(hard.images, F.one_hot(hard.labels, 3).float())
    mixed = Batch(hard.images, 0.7 * soft.labels + 0.3 * soft.labels.flip(0))
    reports = [Learner(linear(), Recipe(), 0).step(each, 0, 10) for each in (hard, soft, mixed)]
    assert reports[1].loss == pytest.approx(reports[0].loss, rel=1e-6)
    assert [report.accuracy for report in reports] == 3 * [reports[0].accuracy]
    logits = linear()(hard.images)
    assert reports[0].accuracy == (logits.argmax(1) == hard.labels).double().mean().item()
    one_hot = 0.9 * mixed.labels + 0.1 / 3
    expected = -(one_hot * logits.log_softmax(1)).sum(1).mean().item()
    assert reports[2].loss == pytest.approx(expected, rel=1e-6)


class Indexed(nn.Module):
    """A linear layer with buffers of all kinds."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear()
        self.register_buffer("index", torch.arange(64))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("mean", torch.zeros(2))
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.mean += 1
        output: Tensor = self.inner(images)
        return output


def test_the_average_is_the_weighted_sum_of_all_weights() -> None:
    module = Indexed()
    learner = Learner(module, Recipe(), 0, ema_decay=0.9)
    weights: list[dict[str, Tensor]] = []
    train(
        learner, iter([batch(6, seed) for seed in range(5)]), (0, 5, 5),
        lambda _: weights.append({name: value.clone() for name, value in module.state_dict().items()}),
    )  # fmt: skip
    assert learner.average
    average = learner.average.module.state_dict()
    shares = [0.9**4, *(0.1 * 0.9 ** (4 - step) for step in range(1, 5))]
    assert sum(shares) == pytest.approx(1)
    for name in ("inner.1.weight", "inner.1.bias", "mean"):
        expected = sum(share * w[name] for share, w in zip(shares, weights, strict=True))
        torch.testing.assert_close(average[name], expected, rtol=1e-5, atol=1e-6)
        assert not torch.equal(average[name], weights[-1][name])
    for name in ("index", "mask"):
        assert torch.equal(average[name], weights[-1][name])


def test_randomness_of_a_step_is_a_function_of_seed_step_and_rank() -> None:
    def draw(seed: int, step: int, rank: int) -> list[float]:
        with step_randomness(seed, step, rank, torch.device("cpu")):
            return torch.rand(4).tolist()

    before = torch.get_rng_state()
    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({tuple(draw(*each)) for each in [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 2)]}) == 4
    assert torch.equal(torch.get_rng_state(), before)


def test_drop_path_is_drawn_anew_for_every_piece_of_every_step() -> None:
    kept: list[tuple[bool, ...]] = []
    module = nn.Sequential(nn.Flatten(), path := DropPath(), nn.Linear(12, 3))
    path.rate = 0.5
    path.register_forward_hook(lambda _, __, output: kept.append(tuple((output != 0).any(1).tolist())))
    learn(module, [batch(40)] * 4, gradient_accumulation=2)
    assert len(kept) == len(set(kept)) == 8
    assert 40 < sum(map(sum, kept)) < 120  # of 160


def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network(toy_spec(QUADRA, QUADRA).layers)


def images(count: int) -> Batch:
    generator = torch.Generator().manual_seed(2)
    return Batch(torch.randn(count, 3, 16, 16, generator=generator), torch.arange(count) % 10)


def test_the_recipe_sets_drop_path_and_checkpointing() -> None:
    module = network()
    Recipe(drop_path=0.4, gradient_checkpointing=True).prepare(module)
    rates = [part.rate for part in module.modules() if isinstance(part, DropPath)]
    assert (min(rates), max(rates)) == (0.0, 0.4)
    assert module.checkpointing


def trained_once(**recipe: Any) -> Network:
    module = network()
    chosen = Recipe(**recipe)
    chosen.prepare(module)
    train(Learner(module, chosen, 0), iter([images(8)]), (0, 1, 1), lambda _: None)
    return module


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_checkpointing_changes_no_bit_even_with_drop_path() -> None:
    assert equal(trained_once(drop_path=0.5), trained_once(drop_path=0.5, gradient_checkpointing=True))
    assert not equal(trained_once(drop_path=0.5), trained_once())


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_mixed_precision_learns_with_weights_in_full(precision: str, dtype: torch.dtype) -> None:
    module = linear()
    dtypes = set()
    module.register_forward_hook(lambda _, __, output: dtypes.add(output.dtype))
    losses: list[float] = []
    recipe = Recipe.model_validate({"precision": precision, "rate": 0.05})
    train(
        Learner(module, recipe, 0), iter([batch(30, seed) for seed in range(40)]), (0, 40, 40),
        lambda report: losses.append(report.loss),
    )  # fmt: skip
    assert dtypes == {dtype}
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert losses[-1] < 0.6 * losses[0]
    assert all(p.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("clip_norm", [5.0, 0.1])
def test_the_gradient_is_clipped_as_without_a_scale(clip_norm: float) -> None:
    """The first moment of AdamW after a step is a tenth of the clipped gradient."""
    moments = [
        learn(linear(), [batch(6)], clip_norm=clip_norm, precision=precision).state()
        for precision in ("fp32", "fp16")
    ]
    for number in range(2):
        ours, theirs = (state[f"weights/optimizer/{number}/exp_avg"] for state in moments)
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02 * ours.abs().max().item())


def overflowing(module: nn.Sequential, when: Callable[[], bool]) -> None:
    """Gradients of the weight are infinite ``when`` it says so."""
    weight = module[1].weight
    assert isinstance(weight, Tensor)
    weight.register_hook(lambda gradient: gradient * torch.inf if when() else gradient)


def test_an_overflow_under_a_scaled_loss_skips_the_update_and_halves_the_scale() -> None:
    module, hot = linear(), [True]
    overflowing(module, lambda: hot[0])
    learner = Learner(module, Recipe(precision="fp16"), 0)
    before = [p.detach().clone() for p in module.parameters()]
    learner.step(batch(6), 0, 10)
    assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))
    assert learner.state()["scaler/scale"] == 2.0**15
    hot[0] = False
    learner.step(batch(6), 1, 10)
    assert not any(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))
    assert learner.state()["scaler/scale"] == 2.0**15
    assert learner.state()["scaler/_growth_tracker"] == 1


def test_an_overflow_that_no_scale_avoids_is_refused() -> None:
    module = linear()
    overflowing(module, lambda: True)
    learner = Learner(module, Recipe(precision="fp16"), 0)
    for step in range(17):  # from 2^16 down to 1/2
        learner.step(batch(6), step, 30)
    with pytest.raises(ConfigError, match="norm of the gradient became"):
        learner.step(batch(6), 17, 30)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_infinite_gradient_without_a_scale_is_refused(precision: str) -> None:
    module = linear()
    overflowing(module, lambda: True)
    before = [p.detach().clone() for p in module.parameters()]
    with pytest.raises(ConfigError, match="norm of the gradient became"):
        learn(module, [batch(6)], precision=precision)
    assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))
