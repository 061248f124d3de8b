import pytest

from quadnas.report.facts import (
    accuracy_interval,
    caveats,
    fixed_ms,
    interval_text,
    ms,
    stages,
)
from quadnas.search.result import IntervalRecord, SlotRecord

from .example import search_result, slot


def test_stages_group_slots_and_the_rest_is_what_they_leave() -> None:
    first, second = stages(search_result().slots)
    assert (first.number, first.latency_ms) == (1, 9.0 + 4.0 + 0.0)
    assert (second.number, second.latency_ms) == (2, 5.0 + 5.0)
    assert fixed_ms(search_result()) == pytest.approx(32.5 - 23.0)


def kernels_reached_everywhere(side: int, kernel: int) -> bool:
    """Whether an odd kernel reaches every pixel of a row of ``side`` from every other, by counting."""
    return all(abs(a - b) <= kernel // 2 for a in range(side) for b in range(side))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7])
def test_kernels_that_see_the_same_pixels(side: int) -> None:
    (record,) = stages((slot(0, "identity", train_map=side),))
    whole = tuple(k for k in (3, 5, 7) if kernels_reached_everywhere(side, k))
    assert record.alike_kernels == (whole if len(whole) > 1 else ())


def test_the_note_names_stage_map_and_kernels() -> None:
    (note,) = caveats(stages(search_result().slots))
    assert note.startswith("Stage 2 was trained on 2x2 maps, where kernels 3, 5 and 7 see the same pixels")


def test_a_stage_whose_first_block_reduces_the_map_is_told_of_once() -> None:
    """Its first slot lacks identity, and its price list differs: two records of one stage on the same maps."""
    labels, prices = ("mbconv-k3", "mbconv-k7", "swin", "identity"), (2.0, 3.0, None, 0.0)

    def record(stage: int, first: bool, train_map: int) -> SlotRecord:
        count = 3 if first else 4
        changes = {"labels": labels[:count], "latency_ms": prices[:count], "chosen": 0, "fits": ()}
        return slot(stage, "identity", train_map).model_copy(update=changes)

    slots = [record(0, True, 8), record(0, False, 8), record(1, True, 2), record(1, False, 2)]
    slots[1] = slots[1].model_copy(update={"latency_ms": (2.0, None, None, 0.0)})
    notes = list(caveats(stages(slots)))
    assert len(stages(slots)) == 4
    assert [note[:7] for note in notes] == ["Stage 1", "Stage 2", "Stage 2"]
    assert "could not use swin, mbconv k7: the device" in notes[0]
    assert "could not use swin: the device" in notes[1]
    assert "2x2 maps, where kernels 3 and 7 see the same pixels" in notes[2]


def test_the_interval_says_whether_measurements_checked_it() -> None:
    interval = IntervalRecord(confidence=0.9, low=28.0, high=310.0, calibrated=True)
    assert interval_text(interval) == "90% interval 28.00 ms to 310.0 ms"
    guessed = interval.model_copy(update={"calibrated": False})
    assert interval_text(guessed).startswith("90% interval 28.00 ms to 310.0 ms, uncalibrated: ")
    assert interval_text(None).startswith("unknown: ")


@pytest.mark.parametrize(
    ("value", "text"), [(287.44, "287.4 ms"), (28.744, "28.74 ms"), (2.8744, "2.874 ms")]
)
def test_milliseconds(value: float, text: str) -> None:
    assert ms(value) == text


@pytest.mark.parametrize(("correct", "images"), [(0, 10), (7, 10), (337, 400), (9_000, 9_000)])
def test_an_accuracy_s_interval_ends_where_a_score_test_at_5_percent_does(correct: int, images: int) -> None:
    accuracy = correct / images
    low, high = accuracy_interval(search_result(accuracy=accuracy, test_images=images))
    assert low < high, "the two roots, also where one of them is 0 or 1"
    for end in (low, high):
        deviation = (end * (1 - end) / images) ** 0.5
        assert abs(end - accuracy) == pytest.approx(1.959964 * deviation, rel=1e-6, abs=1e-12)
