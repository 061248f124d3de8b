"""Training and evaluating a network from its model spec alone: ``quadnas train`` and ``quadnas evaluate``."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from quadnas.config import Settings, validated, write_yaml
from quadnas.data.base import DataSet, load_data
from quadnas.data.normalization import Normalization
from quadnas.data.order import stable_seed
from quadnas.errors import ConfigError
from quadnas.network import Network, require_size, with_all_arguments
from quadnas.run.events import Notice, Observer
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.space.model_spec import ModelSpec
from quadnas.training.device import arithmetic, compute_device
from quadnas.training.distributed import ALONE, Ranks, SharedSession
from quadnas.training.evaluation import Score, evaluate
from quadnas.training.initial import start_from
from quadnas.training.recipe import Recipe
from quadnas.training.stage import TrainingStage, scored
from quadnas.training.weights import load_weights, weights_bytes

MODEL, WEIGHTS, RESULT = "model.yaml", "model.safetensors", "result.json"


class TrainSettings(Settings):
    """One training of a model spec. ``train_size``: side of the images, by default the data set's own.

    ``init_from``: a weights file to start from (see ``start_from``) instead of a fresh initialisation.
    """

    model: ModelSpec
    init_from: str | None = None
    data: str = "digits"
    train_size: Annotated[int, Field(ge=1)] | None = None
    train_images: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[int, Field(ge=1)] = 20
    seed: Annotated[int, Field(ge=0)] = 0
    recipe: Recipe = Recipe()
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 180.0


def matched(spec: ModelSpec, data: str, train_images: int | None = None) -> tuple[ModelSpec, DataSet]:
    """The spec and the data under its normalisation; raises ConfigError if the classes are not the spec's.

    A design, such as a model called by its name, takes classes and normalisation from the data instead.
    """
    found = load_data(data, limit=train_images)
    if spec.is_design:
        spec = with_classes_of(spec, found)
    if found.classes != spec.classes:
        raise ConfigError(
            f"model {spec.name!r} tells {len(spec.classes)} classes apart ({', '.join(spec.classes[:3])} ...), "
            f"{data!r} has {len(found.classes)} ({', '.join(found.classes[:3])} ...); give the data it was made "
            "for, or edit 'classes' and the last layer's channels_out in the spec and train it anew"
        )
    found = found.normalized_by(Normalization(spec.input.mean, spec.input.std))
    return spec, found.to(compute_device())


def with_classes_of(spec: ModelSpec, data: DataSet) -> ModelSpec:
    """The spec for other data: their classes and normalisation, every argument written out."""
    *body, head = (with_all_arguments(layer) for layer in spec.layers)
    head = head.model_copy(update={"channels_out": len(data.classes)})
    inputs = spec.input.model_copy(update=asdict(data.normalization))
    return spec.model_copy(update={"input": inputs, "classes": data.classes, "layers": (*body, head)})


def prepare(settings: TrainSettings, ranks: Ranks = ALONE) -> tuple[ModelSpec, DataSet, int]:
    """The model and data of a training and the side of its images, checked; raises ConfigError, DataError."""
    spec, data = matched(settings.model, settings.data, settings.train_images)
    size = settings.train_size or data.default_train_size
    require_size(spec.layers, size)
    batch = min(settings.recipe.batch_size, len(data.training))
    ranks.shard.of_batch(batch, pairs=settings.recipe.augmentation.mixes)
    with torch.device("meta"):
        ranks.check(Network(spec.layers))
    return spec, data, size


def new_run(settings: TrainSettings, path: Path, ranks: Ranks = ALONE) -> RunFolder:
    """A run folder for a training, which rank 0 creates and all open; raises what ``prepare`` raises."""
    spec, _, _ = prepare(settings, ranks)  # a mistake is refused before there is a run folder
    settings = settings.model_copy(update={"model": spec})
    if settings.init_from:
        weights = Path(settings.init_from)
        start_from(new_network(spec, settings.seed), spec.layers, weights)
        settings = settings.model_copy(update={"init_from": str(weights.resolve())})
    if ranks.leads:
        RunFolder.create(path, settings.model_dump(mode="json"))
    return RunFolder.open(Path(ranks.told(str(path))))


def train_network(
    folder: RunFolder,
    observe: Observer,
    stop: StopFlag,
    clock: Callable[[], float] = time.monotonic,
    ranks: Ranks = ALONE,
) -> Score:
    """Train from scratch, or go on with, the network whose ``TrainSettings`` lie in ``folder``.

    Rank 0 holds the folder's lock and writes model.yaml, model.safetensors and result.json there. Returns the
    score on the test split, of the average of the weights where the recipe has one.
    """
    settings = validated(folder.settings, TrainSettings, str(folder.path))
    recipe = settings.recipe
    spec, data, size = prepare(settings, ranks)
    inputs = {"data": data.identity, **arithmetic(compute_device())}
    session = SharedSession(ranks, folder, observe, stop, clock, settings.checkpoint_seconds, inputs)
    network = new_network(spec, settings.seed)
    checkpoint = session.resume()
    if settings.init_from and not checkpoint:
        session.emit(Notice(str(start_from(network, spec.layers, Path(settings.init_from)))))
    network.to(compute_device())
    trained = TrainingStage(
        network, data.training, recipe, session,
        epochs=settings.epochs, size=size, seed=settings.seed, findings={}, ranks=ranks,
    ).run(checkpoint)  # fmt: skip
    session.write(MODEL, write_yaml(spec))
    session.write(WEIGHTS, weights_bytes(trained.kept, {"train_size": str(size)}))
    score = scored(trained, data.test, session, label="trained", size=size, ranks=ranks)
    session.write(RESULT, json.dumps(asdict(score)))
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
    spec, found = matched(spec, data)
    network = Network(spec.layers)
    notes = load_weights(network, weights)
    trained_at = notes.get("train_size", "")
    if size is None:
        size = int(trained_at) if trained_at.isdecimal() else spec.input.size
    require_size(spec.layers, size)
    return evaluate(network.to(compute_device()), found.test, size=size), size
