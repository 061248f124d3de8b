"""Stochastic depth: what is dropped, how the rest is scaled, and what it costs when it is off."""

import pytest
import torch

from quadnas.blocks.base import Ports
from quadnas.blocks.quadra import Quadra
from quadnas.ops.drop_path import DropPath


def drop_path(rate: float) -> DropPath:
    module = DropPath()
    module.rate = rate
    return module


@pytest.mark.parametrize("rate", [0.125, 0.5, 0.75])
def test_samples_are_dropped_as_often_as_asked_and_the_others_scaled(rate: float) -> None:
    torch.manual_seed(0)
    count = 20_000
    x = torch.randn(count, 2, 1, 3)
    y = drop_path(rate)(x)
    kept = y.flatten(1).abs().sum(1) > 0
    assert torch.equal(y[~kept], torch.zeros_like(y[~kept]))
    # the scales 8/7, 2 and 4 as float32 knows them
    assert torch.equal(y[kept], x[kept] * torch.tensor(1 / (1 - rate)))
    deviation = (rate * (1 - rate) / count) ** 0.5
    assert abs((~kept).double().mean().item() - rate) < 4 * deviation


def test_gradients_pass_only_where_the_sample_was_kept() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 3, requires_grad=True)
    y = drop_path(0.5)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.where(y == 0, 0.0, 2.0))
    assert 0 < int((y[:, 0] == 0).sum()) < 64


def test_the_seed_decides() -> None:
    x = torch.ones(100, 1)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(drop_path(0.5)(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.5, False)])
def test_costs_nothing_when_it_is_off(rate: float, training: bool) -> None:
    module = drop_path(rate).train(training)
    x = torch.ones(8, 2)
    before = torch.get_rng_state()
    assert module(x) is x
    assert torch.equal(before, torch.get_rng_state())


def test_a_block_passes_on_the_samples_whose_branches_are_dropped() -> None:
    """With the rate r in both halves, a sample passes unchanged with probability r * r."""
    torch.manual_seed(0)
    block = Quadra(kernel=3, expansion=1, layer_scale=1).build(Ports(2, 2, 1))
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(4000, 2, 2, 2)
    for module in block.modules():
        if isinstance(module, DropPath):
            assert module.rate == 0
            module.rate = 0.5
    with torch.no_grad():
        unchanged = (block(x) == x).flatten(1).all(1).double().mean().item()
        assert abs(unchanged - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5
        assert not (block.eval()(x) == x).flatten(1).all(1).any()
