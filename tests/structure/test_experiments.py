"""A file in ``experiments/`` is the settings of a search if it names a device, else those of a training."""

from pathlib import Path

import pytest

from quadnas.config import read_mapping, read_settings, validated
from quadnas.data.augmentation import RandAugment
from quadnas.data.base import SOURCES
from quadnas.resources import available, locate
from quadnas.search.settings import SearchSettings
from quadnas.search.strategy import STRATEGIES
from quadnas.space.model_family import find_model
from quadnas.space.search_space import load_space
from quadnas.training.standalone import TrainSettings
from tests.structure.source import ROOT

FILES = sorted((ROOT / "experiments").glob("*.yaml"))
SEARCHES = [path for path in FILES if "device" in read_mapping(path)]
TRAININGS = [path for path in FILES if path not in SEARCHES]


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
