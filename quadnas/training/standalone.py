"""Training and evaluating a network from its model spec alone: ``quadnas train`` and ``quadnas evaluate``."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from quadnas.config import Settings, validated, write_yaml
from quadnas.data.base import DataSet, Normalization, load_data
from quadnas.data.order import stable_seed
from quadnas.errors import ConfigError
from quadnas.network import Network, require_size
from quadnas.run.events import Evaluated, Observer
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.run.session import Session
from quadnas.space.model_spec import ModelSpec
from quadnas.training.device import compute_device
from quadnas.training.loop import Score, evaluate
from quadnas.training.recipe import Recipe
from quadnas.training.stage import TrainingStage
from quadnas.training.weights import load_weights, weights_bytes

MODEL, WEIGHTS, RESULT = "model.yaml", "model.safetensors", "result.json"


class TrainSettings(Settings):
    """One training of a model spec. ``train_size``: side of the images, by default the data set's own."""

    model: ModelSpec
    data: str = "digits"
    train_size: Annotated[int, Field(ge=1)] | None = None
    train_images: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[int, Field(ge=1)] = 20
    seed: Annotated[int, Field(ge=0)] = 0
    recipe: Recipe = Recipe()
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 180.0


def data_for(spec: ModelSpec, data: str, train_images: int | None = None) -> DataSet:
    """The data set under the spec's normalisation; raises ConfigError if its classes are not the spec's."""
    found = load_data(data, limit=train_images)
    if found.classes != spec.classes:
        raise ConfigError(
            f"model {spec.name!r} tells {len(spec.classes)} classes apart ({', '.join(spec.classes[:3])} ...), "
            f"{data!r} has {len(found.classes)} ({', '.join(found.classes[:3])} ...); give the data it was made "
            "for, or edit 'classes' and the last layer's channels_out in the spec and train it anew"
        )
    return found.normalized_by(Normalization(spec.input.mean, spec.input.std)).to(compute_device())


def prepare(settings: TrainSettings) -> tuple[DataSet, int]:
    """The data of a training and the side of its images, checked; raises ConfigError, DataError."""
    data = data_for(settings.model, settings.data, settings.train_images)
    size = settings.train_size or data.default_train_size
    require_size(settings.model.layers, size)
    return data, size


def train_network(
    folder: RunFolder, observe: Observer, stop: StopFlag, clock: Callable[[], float] = time.monotonic
) -> Score:
    """Train from scratch, or go on with, the network whose ``TrainSettings`` lie in the locked ``folder``.

    Writes model.yaml, model.safetensors and result.json there; returns the score on the test split.
    """
    settings = validated(folder.settings, TrainSettings, str(folder.path))
    spec = settings.model
    data, size = prepare(settings)
    inputs = {"data": data.identity}
    session = Session(folder, observe, stop, clock, settings.checkpoint_seconds, inputs)
    network = new_network(spec, settings.seed).to(compute_device())
    TrainingStage(
        network, data.training, settings.recipe, session,
        epochs=settings.epochs, size=size, seed=settings.seed, findings={},
    ).run(session.resume())  # fmt: skip
    folder.write(MODEL, write_yaml(spec))
    folder.write(WEIGHTS, weights_bytes(network, {"train_size": str(size)}))
    score = evaluate(network, data.test, size=size, after_batch=session.batch_evaluated)
    session.emit(Evaluated("trained", "test", score.accuracy, score.loss, score.images))
    folder.write(RESULT, json.dumps({"accuracy": score.accuracy, "loss": score.loss, "images": score.images}))
    return score


def new_network(spec: ModelSpec, seed: int) -> Network:
    """The spec's network, freshly initialised; the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(stable_seed("initialisation", seed))
        return Network(spec.layers)


def evaluate_weights(spec: ModelSpec, weights: Path, data: str, size: int | None) -> tuple[Score, int]:
    """Score of a weights file on the test split, and the image side used.

    That is ``size``, else the one the weights were trained at, else the deployment size. Raises ConfigError,
    DataError.
    """
    network = Network(spec.layers)
    notes = load_weights(network, weights)
    trained_at = notes.get("train_size", "")
    if size is None:
        size = int(trained_at) if trained_at.isdecimal() else spec.input.size
    require_size(spec.layers, size)
    return evaluate(network.to(compute_device()), data_for(spec, data).test, size=size), size
