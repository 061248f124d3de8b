"""Sums, shares and upper prices against closed forms."""

import math
from statistics import NormalDist

import pytest

from quadnas.errors import ConfigError
from quadnas.latency.kernels import Kernel, Operator
from quadnas.latency.model import Coverage, Estimate, Price, estimate, upper_ms
from quadnas.testing.toy_device import model

EXACT, SURROGATE, UNCOVERED = Coverage.EXACT, Coverage.SURROGATE, Coverage.UNCOVERED
KERNEL = Kernel("add", 7, 7, (8, 8), 8, batch=2)


def network(*prices: Price) -> Estimate:
    return Estimate((KERNEL,) * len(prices), prices)


def test_the_total_is_correctly_rounded_in_any_order() -> None:
    latencies_ms = [1e16, 1.0, 1.0, 0.1]
    forward = network(*(Price(ms, EXACT) for ms in latencies_ms))
    backward = network(*(Price(ms, EXACT) for ms in reversed(latencies_ms)))
    assert forward.latency_ms == backward.latency_ms == 1e16 + 2.0


def test_one_uncovered_kernel_leaves_no_total() -> None:
    assert network(Price(1.0, EXACT), Price(None, UNCOVERED, "unknown")).latency_ms is None


def test_shares_are_of_milliseconds() -> None:
    shares = network(Price(3.0, EXACT), Price(1.0, SURROGATE, "stand-in")).shares
    assert shares == {"exact": 0.75, "surrogate": 0.25, "uncovered": 0.0}


def test_an_uncovered_kernel_stands_with_its_count() -> None:
    shares = network(
        Price(3.0, EXACT), Price(1.0, SURROGATE, "x"), Price(None, UNCOVERED, "y"), Price(4.0, EXACT)
    ).shares
    assert shares == {
        "exact": pytest.approx(0.75 * 7 / 8),
        "surrogate": pytest.approx(0.75 / 8),
        "uncovered": 0.25,
    }


def test_an_estimate_prices_every_kernel_in_order() -> None:
    kernels = [KERNEL, Kernel("mul", 7, 7, (8, 8), 8, batch=2)]
    found = estimate(model(), kernels)
    assert found.kernels == tuple(kernels)
    assert [price.coverage for price in found.prices] == [EXACT, SURROGATE]


def test_operators_become_kernels_of_the_model_s_batch() -> None:
    operators = [
        Operator(Kernel("conv", 7, 7, (8,), 16, 3), (-1,)),
        Operator(Kernel("bn", 7, 7, (16,), 16), (0,)),
    ]
    assert model().kernels(operators) == [Kernel("conv-bn", 7, 7, (8,), 16, 3, batch=2)]


def test_an_upper_price_adds_the_device_s_and_the_stand_in_s_error() -> None:
    # The toy card: measured/predicted is 0.98 at 0.5 and 1.1 at 0.9, so 1.04 half-way.
    price = Price(10.0, SURROGATE, "stand-in", 0.2)
    assert upper_ms(model(), price, None) == 10.0
    assert upper_ms(model(), price, 0.9) == pytest.approx(10 * (1 + 0.1 + 1.2815515655 * 0.2))
    assert upper_ms(model(), price, 0.7) == pytest.approx(10 * (1 + 0.04 + NormalDist().inv_cdf(0.7) * 0.2))


def test_an_upper_price_is_never_below_the_price() -> None:
    assert upper_ms(model(), Price(10.0, EXACT), 0.5) == 10.0


def test_an_uncovered_kernel_is_never_within_a_limit() -> None:
    assert upper_ms(model(), Price(None, UNCOVERED, "unknown"), None) == math.inf


@pytest.mark.parametrize("confidence", [0.0, 0.49, 0.91, 1.0, math.nan])
def test_a_confidence_that_was_not_checked_is_refused(confidence: float) -> None:
    with pytest.raises(ConfigError, match=r"between 0\.5 and 0\.9.*'toy'"):
        upper_ms(model(), Price(1.0, EXACT), confidence)
