"""Named files: shipped, under $QUADNAS_HOME, or a path; a bare name never leaves its folder."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quadnas.errors import ConfigError
from quadnas.resources import available, locate, own_entry


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty $QUADNAS_HOME with a folder for spaces; the working directory is elsewhere."""
    (tmp_path / "home" / "search_spaces").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("QUADNAS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def test_what_is_shipped_is_found_by_name() -> None:
    assert "quadranet" in available("search_spaces")
    assert (locate("latency_predictors", "cortexA76") / "card.yaml").is_file()


def test_a_user_s_file_is_found_and_wins(home: Path) -> None:
    for name in ("mine", "quadranet"):
        path = home / "search_spaces" / f"{name}.yaml"
        path.touch()
        assert locate("search_spaces", name) == path


def test_without_a_word_the_home_is_in_the_user_s_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QUADNAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert own_entry("latency_predictors", "mine") == tmp_path / ".quadnas" / "latency_predictors" / "mine"
    (tmp_path / ".quadnas" / "search_spaces").mkdir(parents=True)
    (tmp_path / ".quadnas" / "search_spaces" / "mine.yaml").touch()
    assert "mine" in available("search_spaces")


def test_a_device_is_a_folder_with_a_card(home: Path) -> None:
    for name in ("whole", "empty"):
        (home / "latency_predictors" / name).mkdir(parents=True)
    (home / "latency_predictors" / "whole" / "card.yaml").touch()
    assert "whole" in available("latency_predictors")
    assert "empty" not in available("latency_predictors")


def test_a_path_needs_a_separator_or_a_suffix(home: Path) -> None:
    Path("here.yaml").touch()
    Path("bare").touch()
    assert locate("search_spaces", "here.yaml") == Path("here.yaml")
    assert locate("search_spaces", "./bare") == Path("bare")
    with pytest.raises(ConfigError, match="no search space 'bare'"):
        locate("search_spaces", "bare")


def test_the_nearest_name_is_offered_with_the_places_to_put_one() -> None:
    with pytest.raises(ConfigError) as caught:
        locate("search_spaces", "quadranett")
    for part in ("'quadranett'", "did you mean 'quadranet'", "./name.yaml", "$QUADNAS_HOME/search_spaces"):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/" * 5000, "x" * 5000 + ".yaml", "no\nsuch.yaml", "../../nothing"])
def test_no_odd_name_is_more_than_a_mistake(name: str) -> None:
    with pytest.raises(ConfigError, match="no device"):
        locate("latency_predictors", name)


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_whatever_the_name_it_is_a_mistake_or_there(name: str) -> None:
    try:
        assert locate("search_spaces", name).exists()
    except ConfigError as error:
        assert repr(name) in str(error)
