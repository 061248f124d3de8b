"""A network and data on which a training takes a second."""

from typing import Any

from quadnas.data.base import load_data
from quadnas.space.model_spec import InputSpec, ModelSpec
from quadnas.training.standalone import TrainSettings
from tests.toy import toy_space

CANDIDATES = (
    "[{block: quadra, kernel: [3], expansion: [2], layer_scale: [0.1]}, "
    "{block: mbconv, kernel: [3], expansion: [2]}]"
)
QUADRA, MBCONV = 0, 1


def toy_spec(*choices: int) -> ModelSpec:
    """One block per stage, QUADRA or MBCONV (which has batch normalisation), for the digits."""
    data = load_data("digits")
    space = toy_space((8, 16), (1, 1), CANDIDATES)
    normalization = data.normalization
    return ModelSpec(
        name="toy",
        input=InputSpec(size=32, mean=normalization.mean, std=normalization.std),
        classes=data.classes,
        layers=space.layers(choices, 10),
    )


def toy_settings(spec: ModelSpec, **recipe: Any) -> TrainSettings:
    """12 steps in 2 epochs; the clock of a test, which ticks once per look, lets every second step commit."""
    chosen = {"model": spec.model_dump(), "train_images": 96, "train_size": 16, "epochs": 2, "seed": 5}
    return TrainSettings.model_validate(
        chosen | {"checkpoint_seconds": 2.0, "recipe": {"batch_size": 16, **recipe}}
    )
