"""Searched networks on a device whose true prices are known."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from quadnas.calibrate.design import Design
from quadnas.calibrate.intervals import kernel_error, quantiles, unseen_ratios
from quadnas.calibrate.measured import MeasuredNetwork
from quadnas.calibrate.winners import find_winners, importances
from quadnas.config import validated
from quadnas.latency.backends.additive import Additive
from quadnas.latency.card import DeviceFacts, Winners
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import LatencyModel, Price, estimate, upper_ms
from quadnas.latency.table import build_table
from quadnas.search.constraint import Limit, derive
from quadnas.testing.toy_device import card, facts

TRUTH = {"conv": np.array([2e-6]), "add": np.array([1e-4])}
TERMS = {"conv": ("macs",), "add": ("elements",)}
COVERED = {
    "batches": [2, 2], "h": [1, 99], "cin": [1, 9999], "cout": [1, 9999], "kernels": [1], "strides": [1],
}  # fmt: skip
ERROR, NOISE = 0.1, 0.01
NETWORKS, VARIETY = 60, 0.15
SLOTS, CANDIDATES = 6, 6
DATA_SETS, RESAMPLES, SEARCHES = 24, 30, 10
CONFIDENCE = 0.9


class Quirky(LatencyModel):
    """The toy device, but every shape of a kernel takes its own time, a log-normal factor off."""

    def __init__(self, model: LatencyModel, seed: int) -> None:
        super().__init__(model.card, model.arrays, model.batch)
        self._model = model
        self._seed = seed

    def price(self, kernels: Sequence[Kernel]) -> list[Price]:
        prices = self._model.price(kernels)
        return [
            replace(price, latency_ms=price.latency_ms and price.latency_ms * self.factor(kernel))
            for kernel, price in zip(kernels, prices, strict=True)
        ]

    def factor(self, kernel: Kernel) -> float:
        generator = np.random.default_rng((self._seed, kernel.cin, kernel.cout))
        return math.exp(math.log1p(ERROR) * float(generator.standard_normal()))


def conv(cin: int, cout: int) -> Kernel:
    return Kernel("conv", 14, 14, (cin,), cout, 1, batch=2)


def add(channels: int) -> Kernel:
    return Kernel("add", 14, 14, (channels, channels), channels, batch=2)


def device(arrays: dict[str, np.ndarray], **changes: object) -> Additive:
    return Additive(card(terms=TERMS, sampled={op: [COVERED] for op in arrays}, **changes), arrays, 2)


# A slot offers convolutions and sums that cost 1 to 2 times its cheapest candidate.
LAYOUT = (
    [conv(50, 50)],
    [
        [[conv(40 + 8 * c, 50 + s)] if c % 2 else [add(25 + 3 * c + s)] for c in range(CANDIDATES)]
        for s in range(SLOTS)
    ],
)


def measured(truth: LatencyModel, generator: np.random.Generator) -> list[MeasuredNetwork]:
    """Networks that all spend a similar share of their time in convolutions, so that it is hardly known."""
    networks = []
    for number in range(NETWORKS):
        convs = [conv(*shape) for shape in generator.integers(20, 80, size=(20, 2)).tolist()]
        share = generator.uniform(1 - VARIETY, 1 + VARIETY)
        adds = [add(max(1, round(kernel.cin * kernel.cout * share / 120))) for kernel in convs]
        true_ms = estimate(truth, [*convs, *adds]).latency_ms or math.nan
        noise = 1 + NOISE * float(generator.standard_normal())
        networks.append(MeasuredNetwork(str(number), "toys", (*convs, *adds), true_ms * noise))
    return networks


def fitted(truth: LatencyModel, generator: np.random.Generator) -> tuple[Additive, Winners, float]:
    """A model of a device, what it believes of winners, and how far it believes a kernel to be off."""
    networks = measured(truth, generator)
    design = Design.of(validated({**facts(), "terms": TERMS}, DeviceFacts, "toy"), networks)
    everything = np.ones(len(networks), dtype=bool)
    ratios = unseen_ratios(design, networks, everything)
    model = device(design.solve(everything), error_quantiles=quantiles(ratios))
    error = kernel_error([estimate(model, network.kernels) for network in networks], ratios)
    resampled = [design.solve(everything, weights) for weights in importances(networks, RESAMPLES)]
    return model, find_winners("toys", LAYOUT, model, resampled, error), error


@cache
def fits() -> tuple[tuple[LatencyModel, Additive, Winners, float], ...]:
    """Many devices that differ in what their kernels really take, each with the model that was fitted to it."""
    generator = np.random.default_rng(1)
    truths = [Quirky(device(TRUTH), seed) for seed in range(DATA_SETS)]
    return tuple((truth, *fitted(truth, generator)) for truth in truths)


def network(choices: Sequence[int]) -> list[Kernel]:
    chosen = [row[choice] for row, choice in zip(LAYOUT[1], choices, strict=True)]
    return [*LAYOUT[0], *(kernel for candidate in chosen for kernel in candidate)]


def searched(truth: LatencyModel, model: LatencyModel, generator: np.random.Generator) -> list[list[float]]:
    """(true latency over the limit, true over predicted) of what searches find under limits that bind."""
    table = build_table(model, *LAYOUT, lambda price: upper_ms(model, price, CONFIDENCE))

    def bound_ms(choices: Sequence[int]) -> float:
        return estimate(model, network(choices)).upper_ms(CONFIDENCE, winner=True)

    found = []
    for _ in range(SEARCHES):
        scores = generator.standard_normal((SLOTS, CANDIDATES))
        low, high = table.range[0], table.of(scores.argmax(axis=1).tolist())
        limit_ms = low + float(generator.uniform(0.1, 0.9)) * (high - low)
        choices = derive(scores, [Limit("toy", "ms", limit_ms, table, bound_ms)])
        assert bound_ms(choices) <= limit_ms
        found.append(
            [total_ms(truth, choices) / limit_ms, total_ms(truth, choices) / total_ms(model, choices)]
        )
    return found


def total_ms(model: LatencyModel, choices: Sequence[int]) -> float:
    return estimate(model, network(choices)).latency_ms or math.nan


@cache
def outcomes() -> dict[str, np.ndarray]:
    """What the true devices say of searches without and with the knowledge of winners, and of no search."""
    generator = np.random.default_rng(2)
    naive, aware, unselected = [], [], []
    for truth, model, winners, _ in fits():
        naive += searched(truth, model, generator)
        card = model.card.model_copy(update={"winners": winners})
        aware += searched(truth, Additive(card, model.arrays, 2), generator)
        for _ in range(50):
            choices = generator.integers(CANDIDATES, size=SLOTS).tolist()
            unselected.append(total_ms(truth, choices) / total_ms(model, choices))
    return {"naive": np.array(naive), "aware": np.array(aware), "unselected": np.array(unselected)}


def test_winners_keep_a_limit_as_often_as_asked_only_with_their_own_error() -> None:
    kept = {name: float(np.mean(outcomes()[name][:, 0] <= 1)) for name in ("naive", "aware")}
    assert kept["naive"] < CONFIDENCE - 0.1
    assert kept["aware"] >= CONFIDENCE


def test_the_bias_of_winners_is_what_the_true_devices_show() -> None:
    selected = float(outcomes()["naive"][:, 1].mean() / outcomes()["unselected"].mean())
    believed = float(np.mean([winners.bias for *_, winners, _ in fits()]))
    assert selected > 1.01
    assert believed == pytest.approx(selected, abs=0.005)


def test_the_error_of_a_kernel_comes_back_from_whole_networks() -> None:
    assert np.mean([error for *_, error in fits()]) == pytest.approx(ERROR, abs=0.01)


def test_where_a_search_knows_the_truth_it_cannot_pick_what_is_underestimated() -> None:
    model = device(TRUTH)
    certain = find_winners("toys", LAYOUT, model, [TRUTH] * 20, 0.0)
    assert certain.bias == certain.surrogate_bias == 1.0
    assert {ratio for _, ratio in certain.quantiles} == {1.0}
    # what no model knows scatters: seven kernels of 10 % err by about 4 % together, which no search can pick
    scattered = find_winners("toys", LAYOUT, model, [TRUTH] * 40, ERROR)
    assert scattered.bias == 1.0
    levels = dict(scattered.quantiles)
    assert 1.03 < levels[0.9] / levels[0.5] < 1.08


def test_stand_ins_that_err_are_picked_where_they_are_too_cheap() -> None:
    layout = (
        LAYOUT[0],
        [[[add(20)], [Kernel("mul", 14, 14, (20, 20), 20, batch=2)], [conv(40, 60)]] for _ in range(SLOTS)],
    )
    rule = {"reference": "add", "factor": 1.0, "error": 0.5, "reason": "made up"}
    model = device(TRUTH, surrogates={"mul": rule})
    found = find_winners("toys", layout, model, [TRUTH] * 40, 0.0)
    assert found.bias == 1.0 and found.surrogate_bias > 1.01
