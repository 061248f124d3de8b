"""Settings files: everything that is not plainly right is refused, with file, key and the nearest valid one."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from quadnas.config import (
    MAX_BYTES,
    MAX_DEPTH,
    Settings,
    overlaid,
    parse_yaml,
    read_mapping,
    read_settings,
    validated,
    write_yaml,
)
from quadnas.errors import ConfigError


class Inner(Settings):
    """A nested model."""

    rate: float = 0.1
    epochs: int = 1


class Outer(Settings):
    """A model with every kind of value."""

    name: str
    inner: Inner = Inner()
    steps: tuple[Inner, ...] = ()
    extra: dict[str, Any] = Field(default_factory=dict)


def refused(text: str, *parts: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validated(parse_yaml(text, "file.yaml"), Outer, "file.yaml")
    message = str(caught.value)
    assert message.startswith("file.yaml: ")
    for part in parts:
        assert part in message
    assert len(message) < 500


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+1e-3", "0.1e-2", "1.e-3", "0.001", "1.0e-03"])
def test_every_spelling_of_a_number_is_a_number(text: str) -> None:
    assert parse_yaml(f"rate: {text}", "file.yaml") == {"rate": 0.001}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: a\nname: b", ("line 2", "'name' stands twice")),
        ("name: a\ninner: {rate: 1.0, rate: 2.0}", ("'rate' stands twice",)),
        ("name: &a x\nextra: {b: *a}", ("line 1", "aliases are not allowed")),
        ("name: x\nextra: {<<: *a}", ("aliases are not allowed",)),
        ("name: !!python/object/apply:os.getcwd []", ("tags are not allowed",)),
        ("name: !!int ''", ("tags are not allowed",)),
        ("extra: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, (f"deeper than {MAX_DEPTH} levels",)),
        ("#" * (MAX_BYTES + 1), (f"larger than {MAX_BYTES} bytes",)),
        ("name: [", ("not a valid YAML file", "line 1")),
        ("[1]: 2", ("unhashable key",)),
        ("name: 2020-13-45", ("not a valid YAML file",)),
        ("name: x\0", ("not a valid YAML file",)),
        ("nam: x", ("the key 'name' is missing", "unknown key 'nam'", "did you mean 'name'", "extra, inner")),
        ("name: x\ninner: {epoch: 1}", ("unknown key 'inner.epoch'", "did you mean 'epochs'")),
        ("name: x\nsteps: [{}, {rat: 1.0}]", ("unknown key 'steps.1.rat'", "did you mean 'rate'")),
        ("name: 3", ("name: Input should be a valid string, not 3",)),
        ("name: x\ninner: {epochs: '3'}", ("inner.epochs: Input should be a valid integer, not '3'",)),
        ("name: x\ninner: {epochs: 1.0}", ("inner.epochs: Input should be a valid integer",)),
        ("name: x\ninner: {epochs: yes}", ("inner.epochs: Input should be a valid integer, not True",)),
        ("name: x\ninner: {rate: .nan}", ("inner.rate: Input should be a finite number, not nan",)),
        ("name: x\ninner: {rate: 1e999}", ("inner.rate: Input should be a finite number",)),
        ("name: x\ninner: {rate: " + "9" * 400 + "}", ("inner.rate",)),
        ("name: x\ninner: " + "[" + "1," * 9999 + "]", ("inner: Input should be a valid dictionary",)),
        ("", ("Input should be a valid dictionary",)),
    ],
)
def test_what_is_refused_and_how(text: str, parts: tuple[str, ...]) -> None:
    refused(text, *parts)


def test_the_deepest_allowed_nesting_is_read() -> None:
    depth = MAX_DEPTH - 1
    assert parse_yaml("a: " + "[" * (depth - 1) + "]" * (depth - 1), "f")


def test_many_keys_take_no_longer_than_their_share() -> None:
    """A comparison of every key with every other one would take minutes."""
    text = "{" + ",".join(f"k{i}: 1" for i in range(20_000)) + "}"
    start = time.process_time()
    assert len(parse_yaml(text, "f")) == 20_000
    assert time.process_time() - start < 30


@settings(max_examples=300)
@given(st.one_of(st.text(), st.text("ab01:-.e_[]{}!&*<>=|'\"#,? \n\t~")))
def test_no_text_does_more_than_fail(text: str) -> None:
    """Reading anything ends in plain data or in a ConfigError."""
    try:
        parse_yaml(text, "file.yaml")
    except ConfigError as error:
        assert str(error).startswith("file.yaml: ")


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    [
        "1e3",
        "12e4",
        "-1E5",
        "yes",
        "null",
        "",
        " a",
        "0x1f",
        "1:30",
        "2020-01-01",
        "=",
        "<<",
        "\x85",
        "\ud7ff",
        "🙂",
    ]
)
PLAIN = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda below: st.lists(below, max_size=3).map(tuple) | st.dictionaries(TEXTS, below, max_size=3),
    max_leaves=8,
)


@given(TEXTS, st.floats(allow_nan=False, allow_infinity=False), st.dictionaries(TEXTS, PLAIN, max_size=3))
def test_what_is_written_reads_back_equal(name: str, rate: float, extra: dict[str, Any]) -> None:
    model = Outer(name=name, inner=Inner(rate=rate), extra=extra)
    assert validated(parse_yaml(write_yaml(model), "f"), Outer, "f") == model


def test_one_object_in_two_places_is_written_twice() -> None:
    shared = [1.5, 2.5]
    text = write_yaml(Outer(name="x", extra={"mean": shared, "std": shared}))
    assert parse_yaml(text, "f")["extra"] == {"mean": [1.5, 2.5], "std": [1.5, 2.5]}


@pytest.mark.parametrize("kind", ["missing", "folder", "latin", "large", "long name"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("x" * 300 if kind == "long name" else f"{kind}.yaml")
    if kind == "folder":
        path.mkdir()
    elif kind == "latin":
        path.write_bytes("name: caf\xe9".encode("latin-1"))
    elif kind == "large":
        path.write_bytes(b"#" * (MAX_BYTES + 1))
    reasons = {"missing": "No such file", "folder": "directory", "latin": "UTF-8", "large": "larger than"}
    with pytest.raises(ConfigError, match=reasons.get(kind, "too long")) as caught:
        read_settings(path, Outer)
    assert str(path) in str(caught.value)


def test_the_top_level_of_a_settings_file_is_keys(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    for text in ("- a\n", "1: 2\n", "", "text"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="expected keys with values"):
            read_mapping(path)


def test_what_lies_above_wins_key_by_key() -> None:
    below = {"a": 1, "inner": {"b": 2, "c": 3}}
    assert overlaid(below, {"inner": {"c": 4}, "d": 5}) == {"a": 1, "inner": {"b": 2, "c": 4}, "d": 5}
    assert below == {"a": 1, "inner": {"b": 2, "c": 3}}
