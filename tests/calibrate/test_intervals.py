"""Quantiles from networks that a fit did not see, against fits made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from quadnas.calibrate.design import Design
from quadnas.calibrate.intervals import LEVELS, kernel_error, quantiles, unseen_ratios
from quadnas.calibrate.measured import FOLDS, MeasuredNetwork
from quadnas.config import validated
from quadnas.latency.card import DeviceFacts
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import Coverage, Estimate, Price
from quadnas.testing.toy_device import card, facts

FACTS = validated({**facts(), "terms": {"conv": ("macs",)}}, DeviceFacts, "toy")


def networks(count: int) -> list[MeasuredNetwork]:
    generator = np.random.default_rng(0)
    kernels = [
        Kernel("conv", 14, 14, (int(c),), 32, 1, batch=2) for c in generator.integers(8, 512, size=count)
    ]
    return [MeasuredNetwork(str(i), "toys", (kernel,), 1.0) for i, kernel in enumerate(kernels)]


def timed(nets: list[MeasuredNetwork], slow_fold: int | None) -> Design:
    """A conv takes 3 ns per multiply-accumulate beyond the floor; the networks of one fold twice their time."""
    design = Design.of(FACTS, nets)
    times_ms = design.floor_ms + design.terms[:, 0] * 3e-6
    slow = np.array([net.fold == slow_fold for net in nets])
    return replace(design, measured_ms=np.where(slow, 2 * times_ms, times_ms))


def test_every_network_is_predicted_by_a_fit_that_did_not_see_its_fold() -> None:
    nets = networks(60)
    folds = np.array([net.fold for net in nets])
    assert set(folds.tolist()) == set(range(FOLDS))
    everything = np.ones(len(nets), dtype=bool)
    assert unseen_ratios(timed(nets, None), nets, everything) == pytest.approx(1.0, abs=1e-4)
    # no other network says that this fold is slow, so all of it is twice as slow as predicted
    ratios = unseen_ratios(timed(nets, 3), nets, everything)
    assert ratios[folds == 3] == pytest.approx(2.0, abs=1e-3)


def test_equal_networks_share_their_fold_and_stay_apart_from_the_held_out() -> None:
    for net in networks(50):
        again = MeasuredNetwork("other", "others", net.kernels[::-1], 7.0)
        assert (again.fold, again.held_out) == (net.fold, net.held_out)
    held = [net for net in networks(400) if net.held_out]
    assert {net.fold for net in held} == set(range(FOLDS))  # the one says nothing of the other


def test_quantiles_are_two_sided_and_ascend() -> None:
    found = dict(quantiles(np.arange(1.0, 1002.0)))
    assert tuple(found) == LEVELS and LEVELS[0] + LEVELS[-1] == 1 == LEVELS[3] + LEVELS[-4]
    assert (found[0.005], found[0.5], found[0.995]) == (6.0, 501.0, 996.0)


def test_a_network_of_n_equal_shares_errs_by_the_root_of_n_less_than_a_kernel() -> None:
    """Sixteen different kernels average out fourfold; sixteen times the same kernel does not average."""
    generator = np.random.default_rng(0)
    ratios = np.exp(0.02 * generator.standard_normal(20_000))
    different = tuple(Kernel("conv", 14, 14, (c,), 32, batch=2) for c in range(16))
    price = (Price(1.0, Coverage.EXACT),) * 16
    assert kernel_error([Estimate(different, price, card())], ratios) == pytest.approx(0.08, rel=0.02)
    assert kernel_error([Estimate(different[:1] * 16, price, card())], ratios) == pytest.approx(
        0.02, rel=0.02
    )
