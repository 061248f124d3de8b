import pytest

from quadnas.latency.card import HeldOut
from quadnas.report.facts import error_band, fixed_ms, kernel_notes, ms, stages
from quadnas.search.result import SurrogateRecord

from .example import device_card, search_result, slot


def test_stages_group_slots_and_the_rest_is_what_they_leave() -> None:
    first, second = stages(search_result())
    assert (first.number, first.latency_ms) == (1, 9.0 + 4.0 + 0.0)
    assert (second.number, second.latency_ms) == (2, 5.0 + 5.0)
    assert fixed_ms(search_result()) == pytest.approx(32.5 - 23.0)


def kernels_reached_everywhere(side: int, kernel: int) -> bool:
    """Whether an odd kernel reaches every pixel of a row of ``side`` from every other, by counting."""
    return all(abs(a - b) <= kernel // 2 for a in range(side) for b in range(side))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7])
def test_kernels_that_see_the_same_pixels(side: int) -> None:
    (record,) = stages(search_result(slots=(slot(0, "identity", train_map=side),)))
    whole = tuple(k for k in (3, 5, 7) if kernels_reached_everywhere(side, k))
    assert record.alike_kernels == (whole if len(whole) > 1 else ())


def test_the_note_names_stage_map_and_kernels() -> None:
    (note,) = kernel_notes(stages(search_result()))
    assert note.startswith("Stage 2 was trained on 2x2 maps, where kernels 3, 5 and 7 see the same pixels")


def held_out(within_5: float, within_10: float, within_15: float) -> HeldOut:
    return HeldOut(
        models=10,
        uncovered_models=0,
        within_5=within_5,
        within_10=within_10,
        within_15=within_15,
        rmspe=0.1,
        spearman=0.9,
    )


@pytest.mark.parametrize(
    ("shares", "error"), [((0.9, 1.0, 1.0), 0.05), ((0.8, 0.95, 1.0), 0.10), ((0.1, 0.2, 0.3), 0.15)]
)
def test_the_band_is_the_narrowest_that_held(shares: tuple[float, float, float], error: float) -> None:
    result = search_result(latency_ms=100.0, surrogates=())
    band = error_band(device_card(held_out=held_out(*shares)), result)
    assert band.error == error
    # an error of e means |predicted - measured| = e * measured
    assert 100.0 - band.low_ms == pytest.approx(error * band.low_ms)
    assert band.high_ms - 100.0 == pytest.approx(error * band.high_ms)


def test_surrogates_widen_the_band_by_their_own_error() -> None:
    records = (
        SurrogateRecord(op="gelu", latency_ms=15.0, error=0.6, reason="a guess"),
        SurrogateRecord(op="conv", latency_ms=5.0, error=0.2, reason="outside"),
    )
    band = error_band(device_card(), search_result(latency_ms=100.0, surrogates=records))
    # 15 ms * 0.6 + 5 ms * 0.2 = 10 ms, half of the 20 surrogate ms
    assert band.surrogate_error == pytest.approx(0.5)
    assert band.high_ms == pytest.approx(110.0 / 0.9)
    assert band.low_ms == pytest.approx(90.0 / 1.1)


@pytest.mark.parametrize(
    ("value", "text"), [(287.44, "287.4 ms"), (28.744, "28.74 ms"), (2.8744, "2.874 ms")]
)
def test_milliseconds(value: float, text: str) -> None:
    assert ms(value) == text
