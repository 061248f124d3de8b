"""Every file in ``experiments/`` is a settings file that ``quadnas search --config`` takes."""

from pathlib import Path

import pytest

from quadnas.config import read_settings
from quadnas.data.base import SOURCES
from quadnas.resources import available, locate
from quadnas.search.settings import SearchSettings
from quadnas.search.strategy import STRATEGIES
from quadnas.space.search_space import load_space
from tests.structure.source import ROOT

FILES = sorted((ROOT / "experiments").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_names_what_exists(path: Path) -> None:
    settings = read_settings(path, SearchSettings)
    assert locate("latency_predictors", settings.device).is_dir()
    assert load_space(settings.space).slots
    assert settings.strategy in list(STRATEGIES)
    assert settings.data.partition(":")[0] in list(SOURCES)


def test_the_quick_start_asks_what_the_readme_asks() -> None:
    settings = read_settings(locate("experiments", "quickstart"), SearchSettings)
    assert settings == SearchSettings(device="cortexA76", max_latency_ms=300.0)


def test_experiments_are_found_by_name() -> None:
    assert set(available("experiments")) >= {path.stem for path in FILES}
