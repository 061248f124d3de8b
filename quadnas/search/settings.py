"""The settings of one search, as the command line and an experiment file give them."""

from typing import Annotated, Literal

from pydantic import Field

from quadnas.config import Settings
from quadnas.training.recipe import Recipe

Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
LatencyLoss = Literal["multiplier", "mul_log", "add_linear"]


class Schedule(Settings):
    """How long everything trains. Epochs are passes over the training split.

    Warm-up trains weights alone; in the search an architecture step follows every ``architecture_every`` weight
    steps, at the constant learning rate ``architecture_rate``; ``multiplier_rate`` is how fast the latency
    term grows while the most probable network is above the limit.
    """

    warmup_epochs: Epochs = 6
    search_epochs: Count = 12
    retrain_epochs: Epochs = 6
    architecture_every: Count = 2
    architecture_rate: Rate = 5e-2
    multiplier_rate: Rate = 0.1


class SearchSettings(Settings):
    """One search. ``max_latency_ms`` is the hard limit at ``input_size`` on ``device``.

    ``train_size``: side of the training images, by default the data set's own; ``batch``: the deployment batch,
    by default the device's; ``train_images``: use only so many training images; ``latency_margin`` (fraction)
    and ``confidence`` (probability) tighten the limit.
    """

    device: str
    max_latency_ms: Annotated[float, Field(gt=0)]
    space: str = "quadranet"
    data: str = "digits"
    strategy: str = "proxyless"
    latency_loss: LatencyLoss = "multiplier"
    latency_margin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    confidence: Annotated[float, Field(ge=0.5, lt=1)] | None = None
    input_size: Count = 224
    train_size: Count | None = None
    train_images: Count | None = None
    batch: Count | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    schedule: Schedule = Schedule()
    recipe: Recipe = Recipe()
    checkpoint_seconds: Rate = 180.0
