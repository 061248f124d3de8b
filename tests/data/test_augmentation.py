"""The settings: what they allow, refuse and mean when nothing is said."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from quadnas.config import parse_yaml, read_settings, validated, write_yaml
from quadnas.data.augmentation import BASIC, NO_AUGMENTATION, Augmentation, RandAugment
from quadnas.errors import ConfigError

PUBLISHED = """
rand_augment: {operations: 2, magnitude: 9, magnitude_std: 0.5}
random_erasing: 0.25
mixup_alpha: 0.8
cutmix_alpha: 1.0
mix_probability: 1.0
switch_probability: 0.5
"""


def read(text: str) -> Augmentation:
    return validated(parse_yaml(text, "recipe.yaml"), Augmentation, "recipe.yaml")


def test_nothing_said_means_crops_and_mirroring_alone() -> None:
    assert read("{}") == BASIC
    assert (BASIC.crops, BASIC.flip) == ("auto", True)
    assert not BASIC.distorts
    assert not BASIC.mixes
    assert BASIC.random_erasing == 0


def test_the_published_recipe_is_what_its_parts_are_by_default() -> None:
    published = read(PUBLISHED)
    assert published == Augmentation(
        rand_augment=RandAugment(), random_erasing=0.25, mixup_alpha=0.8, cutmix_alpha=1.0
    )
    assert published.mixes
    assert published.distorts
    assert (published.scale, published.ratio) == ((0.08, 1.0), (3 / 4, 4 / 3))


def test_none_is_one_word() -> None:
    assert read("none") == NO_AUGMENTATION == Augmentation(crops="none", flip=False)
    assert not NO_AUGMENTATION.distorts
    assert not NO_AUGMENTATION.mixes


@pytest.mark.parametrize(
    "settings", [BASIC, NO_AUGMENTATION, read(PUBLISHED), Augmentation(color_jitter=0.4)]
)
def test_settings_come_back_from_a_file(settings: Augmentation, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(write_yaml(settings))
    assert read_settings(tmp_path / "a.yaml", Augmentation) == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("false", "must be settings such as {flip: false}, or the word none, not False"),
        ("all", "or the word none, not 'all'"),
        ("{mixup: 0.8}", "unknown key 'mixup'; did you mean 'mixup_alpha'"),
        ("{crops: center}", "crops.*'auto', 'shift', 'resized' or 'none'.*'center'"),
        ("{rand_augment: {}, color_jitter: 0.4}", "rand_augment and color_jitter exclude each other"),
        ("{rand_augment: {magnitude: 11}}", "rand_augment.magnitude.*less than or equal to 10.*11"),
        ("{rand_augment: {operations: 0}}", "rand_augment.operations.*greater than or equal to 1.*0"),
        ("{random_erasing: 1.5}", "random_erasing.*less than or equal to 1.*1.5"),
        ("{mixup_alpha: -1}", "mixup_alpha.*greater than or equal to 0.*-1"),
        ("{scale: [0.5, 0.2]}", "scale must be.*least <= most <= 1, not .0.5, 0.2."),
        ("{scale: [0, 1]}", "scale must be"),
        ("{ratio: [2, 1]}", "ratio must be"),
        ("{flip: 1}", "flip.*boolean"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(text)


def test_settings_do_not_change() -> None:
    field: Any = "flip"
    with pytest.raises(ValidationError):
        setattr(BASIC, field, False)
