"""Quantities: exactly the spelling that is documented, correctly rounded, never zero, negative or infinite."""

import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quadnas.errors import ConfigError
from quadnas.units import parse_bytes, parse_count, parse_latencies_ms, parse_latency_ms, parse_percent

MS = {"us": Fraction(1, 1000), "ms": Fraction(1), "s": Fraction(1000)}
NUMBERS = st.from_regex(r"[0-9]{1,12}(\.[0-9]{1,12})?", fullmatch=True, alphabet="0123456789.")


@pytest.mark.parametrize(
    ("text", "latency_ms"),
    [("300ms", 300.0), ("0.3s", 300.0), ("2500us", 2.5), ("2300us", 2.3), ("007ms", 7.0)],
)
def test_the_documented_spellings(text: str, latency_ms: float) -> None:
    assert parse_latency_ms(text) == latency_ms


@given(NUMBERS, st.sampled_from(sorted(MS)))
def test_units_convert_exactly(number: str, unit: str) -> None:
    exact = float(Fraction(number) * MS[unit])
    if exact == 0:
        with pytest.raises(ConfigError):
            parse_latency_ms(number + unit)
    else:
        assert parse_latency_ms(number + unit) == exact


@given(st.one_of(st.text(), st.from_regex(r"[-+]?[0-9.eE_]{0,400} ?(us|ms|s|min)?", fullmatch=True)))
@example("9" * 400 + "ms")
@example("0." + "0" * 400 + "1us")
@example("300ms\n")
def test_whatever_the_text_a_latency_is_positive_and_finite(text: str) -> None:
    try:
        latency_ms = parse_latency_ms(text)
    except ConfigError as error:
        assert repr(text) in str(error)
        assert "us, ms, s" in str(error)
    else:
        assert 0 < latency_ms < math.inf
        assert text.isascii()


@pytest.mark.parametrize(
    "text",
    [
        "300",
        "300MS",
        "300 ms",
        "+3ms",
        "-3ms",
        ".5ms",
        "5.ms",
        "1e3ms",
        "1_000ms",
        "3msms",
        "\N{ARABIC-INDIC DIGIT THREE}ms",
        "\N{FULLWIDTH DIGIT THREE}ms",
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="a positive number with its unit"):
        parse_latency_ms(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("5M", 5_000_000), ("0.6G", 600_000_000), ("1200k", 1_200_000), ("7", 7), ("1.9999k", 1999)],
)
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(
    ("text", "size"), [("20MB", 20_000_000), ("1.5KiB", 1536), ("3B", 3), ("2GiB", 2**31), ("0.5kB", 500)]
)
def test_bytes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "-5M", "5 M", "5m", "5K", "1e6", "5MB", "0.5", "9" * 40, "\N{ARABIC-INDIC DIGIT FIVE}M"]
)
def test_no_other_count(text: str) -> None:
    with pytest.raises(ConfigError, match="a positive number, with k, M or G"):
        parse_count(text)


@pytest.mark.parametrize("text", ["", "20", "20M", "20mb", "0MB", "-1kB", "20 MB", "0.1B", "9" * 40 + "B"])
def test_no_other_size(text: str) -> None:
    with pytest.raises(ConfigError, match="a positive number with B, kB"):
        parse_bytes(text)


def test_several_latencies_come_in_order() -> None:
    assert parse_latencies_ms("300ms,0.1s,2500us") == (2.5, 100.0, 300.0)
    for text in ("", "100ms,", "100ms 200ms", "100ms,200"):
        with pytest.raises(ConfigError, match="a positive number with its unit"):
            parse_latencies_ms(text)


@given(st.integers(0, 9999))
def test_a_percentage_is_a_correctly_rounded_fraction(hundredths: int) -> None:
    text = f"{hundredths // 100}.{hundredths % 100:02}%"
    assert parse_percent(text) == float(Fraction(hundredths, 10_000))


@pytest.mark.parametrize(
    "text", ["100%", "250%", "-5%", "5", "0.05", "5 %", "nan%", "\N{ARABIC-INDIC DIGIT FIVE}%", ""]
)
def test_no_other_margin(text: str) -> None:
    with pytest.raises(ConfigError, match="from 0% to below 100%"):
        parse_percent(text)
