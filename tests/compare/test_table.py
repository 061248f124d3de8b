"""Tables: what is beside what, in which form."""

import csv
import io

import pytest

from quadnas.compare.experiment import experiment_from
from quadnas.compare.statistics import pooled_noise
from quadnas.compare.table import Column, Row, Table, ratios
from quadnas.errors import ConfigError

from .toys import toy

TABLE = Table(
    (Column("accuracy", "accuracy, %", 1, 100), Column("macs", "GMACs", 2, 1e-9), Column("device", "device")),
    (
        Row("plain", {"accuracy": 0.8125, "macs": 4_130_000_000, "device": "a|b"}, {"macs": 4.1e9}),
        Row("wide", {"accuracy": None}, failure="no memory"),
        Row("other", {"accuracy": 0.5}, ratios={"plain": 0.615}, paper_ratios={"plain": 0.7}),
    ),
    ("A note.",),
)


def test_a_published_value_stands_beside_the_measured_one() -> None:
    titles, plain, wide, other = TABLE.grid()
    assert titles == ["arm", "accuracy, %", "GMACs", "paper", "device", "x plain", "paper"]
    assert plain == ["plain", "81.2", "4.13", "4.1", "a|b", "", ""]
    assert wide == ["wide", "", "", "", "", "", ""]
    assert other[1] == "50.0"
    assert other[5:7] == ["0.615", "0.700"]


def test_csv_holds_every_digit_under_keys() -> None:
    first, second, _ = csv.DictReader(io.StringIO(TABLE.as_csv()))
    assert first["accuracy"] == "0.8125"
    assert first["macs"] == "4130000000"
    assert first["paper:macs"] == "4100000000.0"
    assert (first["failure"], second["failure"]) == ("", "no memory")


def test_markdown_is_one_table_with_the_notes_below() -> None:
    lines = TABLE.as_markdown().splitlines()
    assert lines[1] == "| --- |" + " ---: |" * 6
    assert lines[2].startswith("| plain | 81.2 | 4.13 | 4.1 | a\\|b |")
    assert {line.replace("\\|", "").count("|") for line in lines[:5]} == {8}
    assert lines[-3:] == ["wide failed: no memory", "", "A note."]


def test_text_is_aligned() -> None:
    titles, *lines = TABLE.as_text().splitlines()[:4]
    assert TABLE.as_text().endswith("\n\nwide failed: no memory\nA note.")
    assert lines[0].index("81.2") + 4 == titles.index("accuracy, %") + len("accuracy, %")


def test_a_ratio_needs_both_values() -> None:
    against = {"Swin": "swin", "Hor": "hor", "Conv": "conv"}
    assert ratios({"quadra": 3.0, "swin": 2, "hor": None}, against, "quadra") == {"Swin": 1.5}
    assert ratios({"swin": 2.0}, against, "quadra") == {}


def test_a_published_value_needs_a_column_and_a_rival_must_be_an_arm() -> None:
    wrong = toy(arms={"alpha": {"paper": {"lenght": 1.0}}})
    with pytest.raises(ConfigError, match=r"arms.alpha.paper has no column 'lenght'; did you mean 'length'"):
        wrong.check_names("toy.yaml")
    wrong = toy(arms={"alpha": {"against": {"Beta": "beta"}}})
    with pytest.raises(ConfigError, match=r"arms.alpha.against: no arm 'beta'"):
        wrong.check_names("toy.yaml")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"kind": "xr"}, "unknown kind of experiment 'xr'; did you mean 'xor'"),
        ({"kind": None}, "the key 'kind' is missing; allowed: "),
        ({"sigma": [0.3]}, "unknown key 'sigma'; did you mean 'sigmas'"),
        ({"arms": {}}, "no arms"),
        ({"arms": {"../up": {"neuron": "linear"}}}, "arms"),
        ({"arms": {"a": {"neuron": "cubic"}}}, "arms.a.neuron"),
    ],
)
def test_a_wrong_experiment_is_refused_with_the_key(change: dict[str, object], part: str) -> None:
    right = {"format": "quadnas-experiment/1", "kind": "xor", "title": "t", "sigmas": [0.3],
             "arms": {"a": {"neuron": "linear"}}}  # fmt: skip
    assert experiment_from(right, "my.yaml").arms
    with pytest.raises(ConfigError) as caught:
        experiment_from({**right, **change}, "my.yaml")
    assert str(caught.value).startswith(("my.yaml: ", "unknown kind"))
    assert part in str(caught.value)


def test_noise_is_pooled_over_arms_and_tells_what_is_significant() -> None:
    """By hand: variances 2 and 8 with one degree of freedom each; t(0.975, 2) = 4.3027 (any table)."""
    noise = pooled_noise([[1.0, 3.0], [2.0, 6.0], [7.0]])
    assert noise is not None
    assert noise.deviation == pytest.approx(5**0.5)
    assert noise.freedom == 2
    assert noise.significant(2) == pytest.approx(4.302653 * 5**0.5, rel=1e-6)
    assert pooled_noise([[1.0], [2.0]]) is None
