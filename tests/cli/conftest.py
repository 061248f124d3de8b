"""One tiny search that all tests share, and an empty place to work in."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.command import TINY_SEARCH, TINY_SPACE, Answer, quadnas, write


@dataclass(frozen=True)
class Found:
    """A finished search: where it lies, what it printed, and the settings file it was started with."""

    run: Path
    answer: Answer
    config: Path
    space: Path


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """The tiny search; read it, never change it."""
    folder = tmp_path_factory.mktemp("found")
    space = write(folder / "tiny.yaml", TINY_SPACE)
    config = write(folder / "search.yaml", f"{TINY_SEARCH}space: {space}\n")
    answer = quadnas("search", "--config", config, "--out", folder / "run", "--json")
    return Found(folder / "run", answer, config, space)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the tiny space ``tiny.yaml`` in it and nothing else."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "tiny.yaml", TINY_SPACE)
    return tmp_path
