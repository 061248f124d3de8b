"""LaTeX tables, read by a strict little reader: it knows a few commands and refuses everything else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quadnas.compare.latex import escaped
from quadnas.compare.table import Column, Row, Table

TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)
PRINTED = {
    r"\textbackslash": "\\", r"\textasciitilde": "~", r"\textasciicircum": "^", r"\textless": "<",
    r"\textgreater": ">", r"\textbar": "|", r"\pm": "±", r"\times": "\N{MULTIPLICATION SIGN}",
    r"\mu": "\N{MICRO SIGN}", r"\tau": "\N{GREEK SMALL LETTER TAU}",
    **{f"\\{c}": c for c in "{}$&#_%"},
}  # fmt: skip
NO_ARGUMENT = {
    r"\centering",
    r"\par",
    r"\smallskip",
    r"\footnotesize",
    r"\toprule",
    r"\midrule",
    r"\bottomrule",
}


def printed(latex: str) -> str:
    """What TeX prints of text; raises AssertionError for anything that it would not take as text."""
    text, depth, math, swallow = "", 0, False, False
    for token in TOKEN.findall(latex):
        if swallow and token == " ":
            continue  # behind a command's name, spaces vanish
        swallow = False
        if token == "{":
            depth += 1
        elif token == "}":
            depth -= 1
            assert depth >= 0, latex
        elif token == "$":
            math = not math
        elif token.startswith("\\"):
            text += PRINTED[token]
            swallow = token[1].isalpha()
        else:
            assert token not in "&%#^_~", latex
            assert token.isascii() or token.isalpha(), latex
            text += token
    assert depth == 0, latex
    assert not math, latex
    assert not re.search(r"--|``|\?`|!`", latex), "a ligature"
    return text


def rows_of(latex: str) -> list[list[str]]:
    """The printed cells of the only tabular in a table environment; refuses what is out of place."""
    lines = latex.splitlines()
    assert (lines[0], lines[-1]) == (r"\begin{table}", r"\end{table}")
    begin = next(i for i, line in enumerate(lines) if line.startswith(r"\begin{tabular}{"))
    end = lines.index(r"\end{tabular}")
    columns = lines[begin].removeprefix(r"\begin{tabular}{").removesuffix("}")
    assert set(columns) <= {"l", "r"}
    body = lines[begin + 1 : end]
    assert [body[0], body[2], body[-1]] == [r"\toprule", r"\midrule", r"\bottomrule"]
    rows = []
    for line in (body[1], *body[3:-1]):
        assert line.endswith(r" \\")
        cells = re.split(r"(?<!\\)&", line.removesuffix(r"\\"))
        assert len(cells) == len(columns), line
        assert not line.startswith(("[", "*"))  # would be arguments of the line before
        rows.append([printed(cell).strip() for cell in cells])
    for line in lines[1:begin] + lines[end + 1 : -1]:
        for command in re.findall(r"\\[A-Za-z]+", re.sub(r"^\\caption\{(.*)\}$", r"\1", line)):
            assert command in NO_ARGUMENT or command in PRINTED, line
    return rows


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="'\"`-"), max_size=40))
def test_every_character_is_printed_as_it_is(text: str) -> None:
    assert printed(escaped(text)) == " ".join(text.split())


@given(st.text(max_size=40))
def test_no_text_breaks_out(text: str) -> None:
    assert "\n" not in escaped(text)
    printed(escaped(text))


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("-0.52", "$-$0.52"),
        ("quadra-k3 --resume", "quadra-k3 -{}-resume"),
        ("95 % of a_b & c", r"95 \% of a\_b \& c"),
        ('say "yes" ±1', r"say ''yes'' $\pm$1"),
        ("Grüße 漢", "Grüße ?"),
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
    ],
)
def test_by_hand(text: str, latex: str) -> None:
    assert escaped(text) == latex


def test_a_table_is_one_tabular_between_rules() -> None:
    inner = Table((Column("x", "x, %", 1),), (Row("b minus a", {"x": -1.5}),), (), "Pairs & more", "pair")
    table = Table(
        (Column("accuracy", "accuracy, %", 1, 100), Column("device", "device_name")),
        (Row("a", {"accuracy": 0.5, "device": "x&y"}), Row("[b]", {}, failure="100 % lost")),
        ("A note of #1.",),
        more={"pairs": inner},
    )
    first, second = table.as_latex("50 % & \\more").split("\n\n")
    assert rows_of(first) == [["arm", "accuracy, %", "device_name"], ["a", "50.0", "x&y"], ["[b]", "", ""]]
    assert r"\caption{50 \% \& \textbackslash{}more}" in first
    assert printed(first.splitlines()[-3].removesuffix(r"\par")) == "[b] failed: 100 % lost"
    assert rows_of(second.rstrip("\n")) == [["pair", "x, %"], ["b minus a", "-1.5"]]
