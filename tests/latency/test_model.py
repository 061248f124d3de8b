"""Sums, shares and upper prices against closed forms."""

import math
from dataclasses import replace
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quadnas.errors import ConfigError, CoverageError
from quadnas.latency.card import DeviceCard, Winners
from quadnas.latency.kernels import Kernel, Operator
from quadnas.latency.model import Coverage, Estimate, Price, estimate, upper_ms
from quadnas.latency.spread import Scale
from quadnas.testing.toy_device import ARRAYS, card, model

EXACT, SURROGATE, UNCOVERED = Coverage.EXACT, Coverage.SURROGATE, Coverage.UNCOVERED
KERNEL = Kernel("add", 7, 7, (8, 8), 8, batch=2)


# 90 % of winners' ratios lie below 1.16, the median at 1.08.
WINNERS = Winners(
    space="quadranet",
    searches=100,
    bias=1.1,
    surrogate_bias=1.2,
    quantiles=((0.05, 1.0), (0.5, 1.08), (0.9, 1.16), (0.95, 1.2)),
)


def network(*prices: Price, of: DeviceCard | None = None, ops: tuple[str, ...] = ()) -> Estimate:
    kernels = [replace(KERNEL, op=op) for op in ops] or [KERNEL] * len(prices)
    return Estimate(tuple(kernels), prices, of or card())


def z(level: float) -> float:
    return NormalDist().inv_cdf(level)


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


def test_the_interval_of_a_covered_network_is_the_card_s_quantiles() -> None:
    # The toy card: measured/predicted is 0.9 at 0.05, 0.98 at 0.5, 1.1 at 0.9 and 1.14 at 0.95.
    covered = network(Price(60.0, EXACT), Price(40.0, EXACT))
    assert covered.interval_ms(0.9) == pytest.approx((90.0, 114.0))
    assert covered.upper_ms(0.9) == pytest.approx(110.0)
    assert covered.upper_ms(0.7) == pytest.approx(104.0)  # half-way
    assert covered.calibrated


def test_a_bound_is_never_below_the_prediction() -> None:
    assert network(Price(10.0, EXACT)).upper_ms(0.5) == 10.0
    assert network(Price(10.0, EXACT)).upper_ms(None) == 10.0
    assert upper_ms(model(), Price(10.0, EXACT), 0.5) == pytest.approx(10.0, rel=1e-11)


def test_errors_add_up_within_an_operator_and_in_quadrature_between_operators() -> None:
    prices = (
        Price(40.0, EXACT),
        Price(10.0, SURROGATE, "x", 0.1),
        Price(20.0, SURROGATE, "x", 0.1),
        Price(30.0, SURROGATE, "y", 4 / 30),
    )
    found = network(*prices, ops=("conv-bn", "gelu", "gelu", "layernorm"))
    # 1 + 2 ms of gelu together, 4 ms of layernorm: 5 ms of 100 ms
    assert found.surrogate_error == pytest.approx(0.05)
    assert not found.calibrated
    low_ms, high_ms = found.interval_ms(0.9)
    error = z(0.95) * 0.05
    assert high_ms == pytest.approx(100 * (0.98 + math.sqrt(0.16**2 + error**2)))
    assert low_ms == pytest.approx(100 / (1 / 0.98 + math.sqrt((1 / 0.9 - 1 / 0.98) ** 2 + error**2)))


def test_variants_of_one_operator_err_together() -> None:
    prices = (Price(50.0, SURROGATE, "x", 0.1), Price(50.0, SURROGATE, "x", 0.1))
    assert network(*prices, ops=("dwconv-bn", "dwconv")).surrogate_error == pytest.approx(0.1)
    assert network(*prices, ops=("dwconv", "conv")).surrogate_error == pytest.approx(math.sqrt(2) * 0.05)


@given(st.floats(0.0, 50.0), st.floats(0.05, 0.9))
def test_an_interval_is_positive_and_grows_with_confidence_and_error(error: float, confidence: float) -> None:
    exact = network(Price(10.0, EXACT)).interval_ms(confidence)
    stand_in = network(Price(10.0, SURROGATE, "x", error))
    low_ms, high_ms = stand_in.interval_ms(confidence)
    wider = stand_in.interval_ms(0.9)
    assert 0 < wider[0] <= low_ms <= exact[0] * (1 + 1e-12) <= exact[1] <= high_ms * (1 + 1e-12)
    assert high_ms <= wider[1]


def test_a_scale_from_few_measurements_widens_the_interval() -> None:
    def interval(models: int) -> tuple[float, float]:
        return Estimate((KERNEL,), (Price(100.0, EXACT),), card(), Scale(0.9, models)).interval_ms(0.9)

    assert interval(4)[1] == pytest.approx(98 + 16 * math.sqrt(1.25))
    assert interval(4)[0] < 90.0 and interval(10**9) == pytest.approx((90.0, 114.0))


def test_a_winner_is_dearer_by_the_bias_and_scatters_with_it() -> None:
    covered = network(Price(100.0, EXACT), of=card(winners=WINNERS))
    spread = math.hypot(1.1 - 0.98, 1.16 / 1.08 - 1)
    assert covered.upper_ms(0.9, winner=True) == pytest.approx(100 * 1.1 * (0.98 + spread))
    assert covered.upper_ms(0.9) == pytest.approx(110.0)
    stand_in = network(Price(100.0, SURROGATE, "x", 0.1), of=card(winners=WINNERS))
    spread = math.hypot(1.1 - 0.98, 1.16 / 1.08 - 1, z(0.9) * 0.1)
    assert stand_in.upper_ms(0.9, winner=True) == pytest.approx(100 * 1.2 * (0.98 + spread))
    low_ms, high_ms = covered.interval_ms(0.9, winner=True)
    assert low_ms < 90 * 1.1 and high_ms > 114 * 1.1


price_lists = st.lists(
    st.tuples(
        st.floats(1e-3, 1e3), st.floats(0.0, 2.0), st.sampled_from(("conv", "gelu", "add-relu", "mul"))
    ),
    min_size=1,
    max_size=12,
)


@given(price_lists, st.floats(0.5, 0.95), st.booleans())
def test_prices_of_the_knapsack_never_add_up_to_less_than_the_network_s_bound(
    rows: list[tuple[float, float, str]], confidence: float, with_winners: bool
) -> None:
    toy = card(winners=WINNERS if with_winners else None)
    device = type(model())(toy, ARRAYS, 2)
    prices = [
        Price(ms, SURROGATE if error else EXACT, "stand-in" if error else "", error) for ms, error, _ in rows
    ]
    found = network(*prices, of=toy, ops=tuple(op for _, _, op in rows))
    added_ms = math.fsum(upper_ms(device, price, confidence) for price in prices)
    assert added_ms >= found.upper_ms(confidence, winner=True)
    assert upper_ms(device, prices[0], None) == prices[0].latency_ms


def test_without_a_price_there_is_no_interval_and_nothing_is_within_a_limit() -> None:
    assert upper_ms(model(), Price(None, UNCOVERED, "unknown"), None) == math.inf
    with pytest.raises(CoverageError, match="unknown operator"):
        network(Price(1.0, EXACT), Price(None, UNCOVERED, "unknown operator")).interval_ms()


@pytest.mark.parametrize("confidence", [0.0, 0.04, 0.96, 1.0, math.nan])
def test_a_confidence_that_was_not_checked_is_refused(confidence: float) -> None:
    with pytest.raises(ConfigError, match=r"between 0\.5 and 0\.95 for a limit.*0\.9 for an.*'toy'"):
        upper_ms(model(), Price(1.0, EXACT), confidence)


def test_an_interval_beyond_the_checked_tails_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"up to 0\.9 for an interval"):
        network(Price(1.0, EXACT)).interval_ms(0.91)
