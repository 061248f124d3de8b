"""Timing on a disturbed machine, with made-up times: what counts, what is thrown away, what is said of it."""

import os
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from quadnas.calibrate.own.measuring import LoadMeter, Reference, Runnable, measure, pinned, timed_ms
from quadnas.errors import ConfigError
from tests.calibrate.bench_toys import Timed, exact

Times = tuple[float, float]


def stretched(slow: Callable[[int], float], preempted: Callable[[int], float]) -> Callable[[Runnable], Times]:
    """Visit n takes ``slow(n)`` times as long, and waits ``preempted(n)`` ms for the processor."""
    visits = iter(range(10**9))

    def timer(run: Runnable) -> Times:
        assert isinstance(run, Timed)
        n = next(visits)
        cpu_ms = run.latency_ms * slow(n)
        return cpu_ms + preempted(n), cpu_ms

    return timer


def never(_: int) -> float:
    return 0.0


def graphs(*latencies_ms: float) -> Sequence[Timed]:
    return [Timed(latency_ms) for latency_ms in latencies_ms]


def test_an_undisturbed_machine_gives_the_times_themselves() -> None:
    timings = measure(graphs(0.3, 2.0, 7.0), Reference(Timed(0.2), exact), exact, 15, 60)
    assert [timing.latency_ms for timing in timings] == [0.3, 2.0, 7.0]
    assert {(timing.visits, timing.spread, timing.disturbed) for timing in timings} == {(15, 0.0, 0.0)}


def test_rounds_in_which_the_machine_is_slow_do_not_count() -> None:
    """Half of the time everything takes twice as long: a plain median would be anywhere in between."""
    timer = stretched(lambda n: 2.0 if (n // 40) % 2 else 1.0, never)
    timings = measure(graphs(*[1.0] * 20), Reference(Timed(0.2), timer), timer, 15, 60)
    for timing in timings:
        assert timing.latency_ms == 1.0
        assert 0 < timing.disturbed < 0.8


def test_a_visit_that_lost_the_processor_does_not_count() -> None:
    timer = stretched(lambda _: 1.0, lambda n: 4.0 if n % 3 == 0 else 0.0)
    reference = Reference(Timed(0.2), exact)
    (timing,) = measure(graphs(6.0), reference, timer, 15, 200)
    assert timing.latency_ms == 6.0
    assert timing.visits == 15
    assert timing.disturbed == pytest.approx(1 / 3, abs=0.1)


def test_short_waits_belong_to_the_run() -> None:
    """A runtime that wakes a thread of its own waits for it."""
    timer = stretched(lambda _: 1.0, lambda _: 0.05)
    (timing,) = measure(graphs(0.2), Reference(Timed(0.2), exact), timer, 15, 60)
    assert timing.latency_ms == pytest.approx(0.25)
    assert timing.disturbed == 0


def test_where_nothing_counts_the_least_of_what_was_computed_is_said_to_be_doubtful() -> None:
    timer = stretched(lambda _: 1.0, lambda _: 9.0)
    (timing,) = measure(graphs(3.0), Reference(Timed(0.2), exact), timer, 15, 60)
    assert (timing.latency_ms, timing.visits, timing.spread, timing.disturbed) == (3.0, 0, 1.0, 1.0)


def test_the_median_and_its_spread_are_those_of_the_visits() -> None:
    rng = np.random.default_rng(0)
    draws = rng.uniform(0.9, 1.1, 10_000)
    timer = stretched(lambda n: float(draws[n]), never)
    (timing,) = measure(graphs(1.0), Reference(Timed(0.2), exact), timer, 2001, 4000)
    assert timing.latency_ms == pytest.approx(1.0, abs=0.01)
    assert timing.spread == pytest.approx(0.1, abs=0.01)  # half of a uniform distribution's width of 0.2


def test_single_visits_that_nothing_explains_do_not_move_the_median() -> None:
    timer = stretched(lambda n: 10.0 if n % 5 == 0 else 1.0, never)
    (timing,) = measure(graphs(2.0), Reference(Timed(0.2), exact), timer, 15, 60)
    assert (timing.latency_ms, timing.visits, timing.disturbed) == (2.0, 15, 0.0)


def test_every_round_visits_every_graph_once() -> None:
    order: list[float] = []

    def timer(run: Runnable) -> Times:
        order.append(exact(run)[0])
        return exact(run)

    measure(graphs(1.0, 2.0, 3.0), Reference(Timed(0.2), exact), timer, 4, 60)
    assert order == [1.0, 2.0, 3.0] * 4


def test_real_times_are_real() -> None:
    wall_ms, cpu_ms = timed_ms(lambda: time.sleep(0.03))
    assert wall_ms >= 30
    assert cpu_ms < 15


def test_the_process_is_pinned_in_the_block_alone() -> None:
    before = os.sched_getaffinity(0)
    with pinned(1):
        assert os.sched_getaffinity(0) == {max(before)}
    assert os.sched_getaffinity(0) == before
    with (
        pytest.raises(ConfigError, match=rf"at most {len(before)}, .* not {len(before) + 1}"),
        pinned(len(before) + 1),
    ):
        pass


def test_the_load_is_read() -> None:
    load = LoadMeter().read()
    assert load["queue"] >= 0
    assert 0 <= load["stolen"] <= 1
