"""Why each slot has its block: hand-made searches with known answers."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

from quadnas.latency.kernels import Kernel
from quadnas.network import kernels_of
from quadnas.report.page import render_page
from quadnas.report.sentences import sentence, with_error
from quadnas.report.why import Story, stories
from quadnas.search.derivation import swaps_that_fit
from quadnas.search.result import SearchResult
from tests.toy import toy_problem

from .example import LABELS, PRICES_MS, device_card, journal, search_events, search_result, search_settings
from .test_page import Page

# 32.5 ms under a limit of 35: what a slot may take more is 2.5 ms
CHOSEN = ("quadra-k7-e4", "quadra-k3-e2", "identity", "quadra-k5-e2", "quadra-k5-e2")


def step(**fields: Any) -> dict[str, Any]:
    flat = [[1 / 7] * 7] * 5
    return {"event": "ArchitectureStep", "probabilities": flat, "gains": None, "gain_errors": None, **fields}


def gained(second: Sequence[float], errors: float = 0.001) -> dict[str, Any]:
    """The slot 1.2 with these gains; all others with none."""
    nothing = [0.0] * 7
    gains = [nothing, list(second), nothing, nothing, nothing]
    return step(gains=gains, gain_errors=[[errors] * 7] * 5)


def told(*events: dict[str, Any], result: SearchResult | None = None) -> dict[str, Story]:
    return {story.name: story for story in stories(result or search_result(), events)}


def second(*events: dict[str, Any], **changes: Any) -> str:
    return sentence(told(*events, **changes)["1.2"])


def test_every_slot_has_its_prices_its_share_and_its_choice() -> None:
    found = told()
    assert list(found) == ["1.1", "1.2", "1.3", "2.1", "2.2"]
    for story, label in zip(found.values(), CHOSEN, strict=True):
        price = PRICES_MS[LABELS.index(label)]
        assert story.chosen.name == label.replace("-", " ")
        assert story.share == pytest.approx(price / 32.5)
        assert [one.latency_ms for one in story.candidates] == list(PRICES_MS)
        assert [one.network_ms for one in story.candidates] == pytest.approx(
            [32.5 - price + other for other in PRICES_MS]
        )


def test_what_fits_is_what_the_whole_network_takes_with_it() -> None:
    """Against the kernels of every swapped network, priced one by one; the 5x5 has no price."""

    def cost_ms(kernel: Kernel) -> float | None:
        return None if kernel.kernel == 5 else kernel.cout * kernel.kernel**2 / 1000

    problem = toy_problem(formula=cost_ms)
    choices = (5, 6, 0, 1)  # k7 e4, identity, k3 e2, k3 e4

    def whole_ms(swapped: Sequence[int]) -> float:
        layers = problem.space.layers(swapped, 10)
        return sum(cost_ms(kernel) or 0.0 for kernel in kernels_of(layers, 64, problem.model))

    limit_ms = whole_ms(choices) * 1.05
    found = swaps_that_fit(toy_problem(limit_ms, formula=cost_ms), choices)
    expected = [
        tuple(
            i not in (2, 3) and whole_ms([*choices[:slot], i, *choices[slot + 1 :]]) <= limit_ms
            for i in range(7)
        )
        for slot in range(4)
    ]
    assert found == expected
    assert all(row[choice] for row, choice in zip(found, choices, strict=True))
    assert {fits for row in found for fits in row} == {True, False}


def test_without_steps_nothing_is_claimed() -> None:
    assert second() == (
        "quadra k3 e2 takes 4.000 ms, 12.3% of the network. "
        "This search learned nothing of single candidates: it compared whole networks."
    )


def test_by_probability() -> None:
    rows = [[1 / 7] * 7] * 5
    rows[1] = [0.3, 0.1, 0.05, 0.4, 0.05, 0.08, 0.02]
    assert second(step(probabilities=rows)) == (
        "quadra k3 e2 takes 4.000 ms, 12.3% of the network. Its probability is 30.0%; 14.3% would be chance. "
        "Of the others that would fit, quadra k3 e4 is the next most probable one: 10.0%, 2.000 ms slower. "
        "quadra k5 e4 is more probable, 40.0%, but would not fit: about 35.50 ms in all."
    )
    rows[1] = [0.3, 0.1, 0.05, 0.01, 0.05, 0.09, 0.4]
    assert "identity is the more probable one: 40.0%, 4.000 ms faster." in second(step(probabilities=rows))


def test_by_gain_against_the_next_best_that_would_fit() -> None:
    # k5 e4 gains most but does not fit; k3 e4 is the best other one that does
    assert second(gained([0.03, 0.02, 0.01, 0.05, 0.0, -0.04, -0.07])) == (
        "quadra k3 e2 takes 4.000 ms, 12.3% of the network. In the search the loss was 0.030 +- 0.001 lower with "
        "it than with the slot's average candidate. That is 0.010 +- 0.001 better than quadra k3 e4, the next "
        "best that would also fit, and is 2.000 ms faster. quadra k5 e4 gains 0.02 more, but would not fit: about "
        "35.50 ms in all."
    )


def test_gain_per_millisecond() -> None:
    # identity, 4 ms cheaper, is the next best: (0.03 - 0.01) / 4 ms
    text = second(gained([0.03, 0.0, 0.0, 0.0, -0.02, -0.02, 0.01]))
    assert (
        "0.020 +- 0.001 better than identity, the next best that would also fit, for 4.000 ms more: 0.005 per ms."
        in text
    )


def test_a_choice_that_was_measured_worse_is_told_as_such() -> None:
    text = second(gained([-0.01, 0.03, 0.0, 0.0, 0.0, 0.0, -0.02]))
    assert "the loss was 0.010 +- 0.001 higher with it" in text
    assert "quadra k3 e4 would also fit and was measured 0.040 +- 0.001 better for 2.000 ms more." in text
    text = second(gained([0.0, -0.1, -0.1, 0.0, -0.1, 0.0, 0.02]))
    assert "identity would also fit and was measured 0.020 +- 0.001 better and is 4.000 ms faster." in text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.01234, 0.0031, "0.012 +- 0.003"),
        (7e-5, 0.0021, "0.000 +- 0.002"),
        (-0.0149, 0.00961, "-0.01 +- 0.01"),
        (12.345, 2.0, "12 +- 2"),
        (123.4, 40.0, "123 +- 40"),
        (0.012345, 0.0, "0.012"),
        (0.012345, None, "0.012"),
    ],
)
def test_a_value_ends_where_its_error_begins(value: float, error: float | None, text: str) -> None:
    assert with_error(value, error) == text


@pytest.mark.parametrize(("errors", "chance"), [(0.006, False), (0.0075, True)])
def test_a_difference_within_twice_its_error_may_be_chance(errors: float, chance: bool) -> None:
    """0.02 against 2 sqrt(2) 0.006 = 0.017 and 2 sqrt(2) 0.0075 = 0.0212."""
    text = second(gained([0.03, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0], errors))
    assert ("may be chance" in text) is chance


def test_the_last_measured_gains_count() -> None:
    early, late = gained([0.05, *[0.0] * 6]), gained([0.07, *[0.0] * 6])
    assert "0.070 +- 0.001 lower" in second(early, late, step())


def test_alone_in_a_slot() -> None:
    slots = search_result().slots
    changes = {"latency_ms": (30.0, 30.0, 30.0, 30.0, 30.0, None, 0.0), "fits": (*[False] * 6, True)}
    dear = slots[2].model_copy(update=changes)
    only = slots[2].model_copy(
        update={"labels": ("identity",), "latency_ms": (0.0,), "chosen": 0, "fits": (True,)}
    )
    result = search_result(slots=(dear, only))
    rows = [[1 / 7] * 7, [1.0]]
    found = told(step(probabilities=rows), result=result)
    assert sentence(found["1.1"]) == (
        "identity costs nothing. Its probability is 14.3%; 16.7% would be chance. No other candidate would fit."
    )
    assert sentence(found["1.2"]).endswith("The slot has no other candidate.")


def test_an_unpriced_candidate_is_no_rival() -> None:
    slots = search_result().slots
    changes = {"latency_ms": (4.0, None, 5.0, 7.0, 6.5, 9.0, 0.0), "fits": (True, False, *[True] * 5)}
    record = slots[1].model_copy(update=changes)
    result = search_result(slots=(slots[0], record, *slots[2:]))
    text = second(gained([0.03, 0.9, 0.0, 0.0, 0.0, 0.0, 0.01]), result=result)
    assert "k3 e4" not in text
    candidate = told(gained([0.03, 0.9, 0.0, 0.0, 0.0, 0.0, 0.01]), result=result)["1.2"].candidates[1]
    assert (candidate.gain, candidate.network_ms, candidate.fits) == (None, None, False)


@pytest.mark.parametrize("count", [1, 47, 48, 49, 1000])
def test_the_course_of_a_probability_is_drawn_from_its_first_to_its_last_step(count: int) -> None:
    steps = []
    for number in range(count):
        row = [number / count, *[(1 - number / count) / 6] * 6]
        steps.append(step(probabilities=[row] * 5))
    story = told(*steps)["1.1"]
    history = story.candidates[0].history
    assert len(history) == min(count, 48)
    assert (history[0], history[-1]) == (0.0, (count - 1) / count)
    assert list(history) == sorted(history)
    assert story.candidates[0].probability == history[-1]
    points = [tuple(map(float, point.split(","))) for point in story.course(story.candidates[0]).split()]
    assert points[0] == (0, 19)
    if count > 1:
        highest = max(1 / 6, (count - 1) / count)
        assert points[-1] == pytest.approx((100, 19 - 18 * history[-1] / highest), abs=0.1)


def test_the_spans_lie_to_scale() -> None:
    story = told(gained([0.03, 0.02, -0.01, 0.0, 0.0, 0.0, 0.0], 0.005))["1.2"]
    # from -0.01 - 2 * 0.005 to 0.03 + 2 * 0.005: 0.06 in all
    assert list(story.spans(story.candidates[0])) == [
        ("zero", "left:33.3%;width:0.0%"),
        ("bar", "left:33.3%;width:50.0%"),
        ("whisker", "left:66.7%;width:33.3%"),
    ]
    assert list(story.spans(story.candidates[2]))[1] == ("bar", "left:16.7%;width:16.7%")


def test_the_page_tells_the_sentence_and_every_candidate() -> None:
    result = search_result()
    events = journal(search_events(result))
    last = max(i for i, event in enumerate(events) if event["event"] == "ArchitectureStep")
    events[last] |= gained([0.03, 0.02, 0.01, 0.05, 0.0, -0.04, -0.07])
    text = Page(render_page(search_settings(), result, events, device_card())).text
    for story in stories(result, events):
        assert " ".join(sentence(story).replace("+-", "±").split()) in text
    rows = re.findall(
        r"(quadra k\d e\d|identity) ([\d.]+) ([\d.]+) (yes|no|chosen) 14\.3% (-?[\d.]+) ± 0\.001",
        text,
    )
    assert len(rows) == 5 * 7
    assert rows[7:14] == [
        ("quadra k3 e2", "4", "32.50", "chosen", "0.030"),
        ("quadra k3 e4", "6", "34.50", "yes", "0.020"),
        ("quadra k5 e2", "5", "33.50", "yes", "0.010"),
        ("quadra k5 e4", "7", "35.50", "no", "0.050"),
        ("quadra k7 e2", "6.5", "35.00", "yes", "0.000"),
        ("quadra k7 e4", "9", "37.50", "no", "-0.040"),
        ("identity", "0", "28.50", "yes", "-0.070"),
    ]


def test_slots_of_a_stage_with_a_block_of_its_own_count_on() -> None:
    """The first block of a stage may have other candidates than the rest."""
    slots = search_result().slots
    first = slots[0].model_copy(
        update={"labels": ("conv-k3",), "latency_ms": (1.0,), "chosen": 0, "fits": (True,)}
    )
    result = search_result(slots=(first, *slots[:3]))
    assert list(told(result=result)) == ["1.1", "1.2", "1.3", "1.4"]
    text = render_page(search_settings(), result, [], device_card())
    assert [text.count(f'<th scope="row">1.{number}</th>') for number in (1, 2, 3, 4, 5)] == [1, 1, 1, 1, 0]
