"""A file in ``experiments/`` is for ``quadnas compare`` if it names a kind, as those in ``experiments/paper/`` do.

Otherwise it is the settings of a search if it names a device, else those of a training.
"""

from pathlib import Path

import pytest

from quadnas.compare.experiment import read_experiment
from quadnas.compare.kinds.search import Search
from quadnas.compare.kinds.training import Training
from quadnas.compare.networks import NetworkExperiment, size_of
from quadnas.config import read_mapping, read_settings, validated
from quadnas.data.augmentation import RandAugment
from quadnas.data.base import SOURCES
from quadnas.network import load_space
from quadnas.resources import available, locate
from quadnas.search.settings import SearchSettings
from quadnas.search.strategy import STRATEGIES
from quadnas.space.model_family import find_model
from quadnas.training.standalone import TrainSettings
from tests.structure.source import ROOT

PAPER = sorted((ROOT / "experiments" / "paper").glob("*.yaml"))
FILES = sorted((ROOT / "experiments").glob("*.yaml"))
COMPARISONS = [*PAPER, *(path for path in FILES if "kind" in read_mapping(path))]
SEARCHES = [path for path in FILES if "device" in read_mapping(path)]
TRAININGS = [path for path in FILES if path not in [*SEARCHES, *COMPARISONS]]


def training(path: Path) -> TrainSettings:
    model = find_model("quadranet36_t").model_dump()
    return validated({"model": model, **read_mapping(path)}, TrainSettings, str(path))


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_a_training_is_one(path: Path) -> None:
    settings = training(path)
    assert settings.data.partition(":")[0] in list(SOURCES)


def test_the_published_recipe() -> None:
    """Section 3 of the paper's facts: what QuadraNet states, and of HorNet what it refers to."""
    settings = training(locate("experiments", "imagenet_retrain"))
    recipe, augmentation = settings.recipe, settings.recipe.augmentation
    assert (settings.epochs, settings.train_size) == (300, 224)
    assert (recipe.batch_size, recipe.peak_rate, recipe.final_rate, recipe.weight_decay) == (
        4096,
        4e-3,
        1e-6,
        0.05,
    )
    assert (recipe.betas, recipe.eps, recipe.clip_norm, recipe.label_smoothing) == (
        (0.9, 0.999),
        1e-8,
        5.0,
        0.1,
    )
    per_epoch = 1281167 // 4096
    rates = [recipe.learning_rate(step, 300 * per_epoch) for step in range(30 * per_epoch)]
    assert rates.index(max(rates)) in (20 * per_epoch - 1, 20 * per_epoch)
    assert (recipe.drop_path, recipe.ema_decay) == (0.2, 0.9999)
    assert augmentation.rand_augment == RandAugment(operations=2, magnitude=9.0, magnitude_std=0.5)
    assert (augmentation.mixup_alpha, augmentation.cutmix_alpha) == (0.8, 1.0)
    assert (augmentation.mix_probability, augmentation.switch_probability) == (1.0, 0.5)
    assert (augmentation.random_erasing, augmentation.flip) == (0.25, True)


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
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


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_an_experiment_of_the_paper_names_what_exists(path: Path) -> None:
    found = read_experiment(path)
    assert found.units()
    assert "2311.17956" in found.source
    assert path.read_text().startswith(f"# quadnas compare {path.relative_to(ROOT).as_posix()} ")
    if isinstance(found, NetworkExperiment):
        assert set(found.specs()) == set(found.arms)
    if isinstance(found, Training):
        assert found.data.partition(":")[0] in list(SOURCES)
    if isinstance(found, Search):
        for arm in (name for name, arm in found.arms.items() if arm.model is None):
            settings = found.settings(arm, found.seeds[0])
            assert load_space(settings.space).slots
            assert settings.strategy in list(STRATEGIES)
            assert settings.data.partition(":")[0] in list(SOURCES)
    for device in getattr(found, "devices", ()):
        assert locate("latency_predictors", device).is_dir()


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_our_models_have_the_published_sizes(path: Path) -> None:
    """Within half a unit of the last printed digit, or the rounding of the 25-layer T; three are misprints."""
    misprints = {("quadranet36_s", "parameters"), ("quadranet36_s", "macs"), ("quadranet25_b", "parameters")}
    found = read_experiment(path)
    if not isinstance(found, NetworkExperiment):
        return
    specs = found.specs()
    for name, arm in found.arms.items():
        published = {key: value for key, value in arm.paper.items() if key in ("parameters", "macs")}
        ours = size_of(specs[name].layers, found.input_size) if published else {}
        for key, value in published.items():
            assert (abs(ours[key] / value - 1) < 0.008) != ((name, key) in misprints), (name, key, ours[key])


def test_the_paper_has_a_file_for_every_table_and_figure() -> None:
    names = {path.stem.split("_")[0] for path in PAPER}
    assert names == {"table1", "table2", "table4", "table5", "figure2", "figure4", "figure5"}
