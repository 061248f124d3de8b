import pytest
from hypothesis import given
from hypothesis import strategies as st

from quadnas.report.labels import read_label

FAMILIES = st.from_regex(r"[a-z]{2,8}(-[a-z]{2,8})?", fullmatch=True)
ARGUMENTS = st.dictionaries(st.sampled_from("kedhs"), st.integers(0, 99), max_size=4)


@given(FAMILIES, ARGUMENTS)
def test_a_label_is_read_as_a_space_writes_it(family: str, arguments: dict[str, int]) -> None:
    label = read_label("-".join([family, *(f"{letter}{value}" for letter, value in arguments.items())]))
    assert label.family == family
    assert list(label.arguments.items()) == list(arguments.items())


@pytest.mark.parametrize(
    ("text", "family", "short"),
    [
        ("quadra-k7-e4", "quadra", "k7 e4"),
        ("identity", "identity", ""),
        ("k7", "k7", ""),
        ("-k7", "-k7", ""),
        ("conv-k3-mrelu", "conv-k3-mrelu", ""),
        ("shift-wise-k5-r0.5", "shift-wise", "k5 r0.5"),
        ("a-k3-k5", "a-k3", "k5"),
        ("", "", ""),
    ],
)
def test_what_is_no_argument_stays_in_the_family(text: str, family: str, short: str) -> None:
    label = read_label(text)
    assert (label.family, label.short) == (family, short)
    assert label.full == f"{family} {short}".strip()
