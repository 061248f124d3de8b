"""The settings of one search, as the command line and an experiment file give them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from quadnas.config import Settings
from quadnas.training.recipe import Recipe

Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
LatencyLoss = Literal["multiplier", "mul_log", "add_linear"]


class Schedule(Settings):
    """How long everything trains. Epochs are passes over the training split.

    Warm-up trains weights alone; in the search an architecture step follows every ``architecture_every`` weight
    steps; strategies that descend take it at the constant learning rate ``architecture_rate``.
    """

    warmup_epochs: Epochs = 6
    search_epochs: Count = 12
    retrain_epochs: Epochs = 6
    architecture_every: Count = 2
    architecture_rate: Rate = 5e-2


class LatencyLimit(Settings):
    """The hard limit on one device."""

    device: str
    max_latency_ms: Annotated[float, Field(gt=0)]


class SearchSettings(Settings):
    """One search. ``max_latency_ms`` is the hard limit at ``input_size`` on ``device``.

    ``also`` are limits on further devices, ``max_parameters``, ``max_macs`` (multiply-accumulates of one image)
    and ``max_bytes`` (weights in fp32, as deployed) on the size; all of them hold. ``tighter_limits_ms`` ask for a
    front: a network for each of these limits on ``device`` too, all from one supernet.
    ``train_size``: side of the training images, by default the data set's own; ``batch``: the deployment batch,
    by default the device's; ``train_images``: use only so many training images; ``latency_margin`` (fraction)
    and ``confidence`` (probability) tighten the limit.
    """

    device: str
    max_latency_ms: Annotated[float, Field(gt=0)]
    also: tuple[LatencyLimit, ...] = ()
    max_parameters: Count | None = None
    max_macs: Count | None = None
    max_bytes: Count | None = None
    tighter_limits_ms: tuple[Annotated[float, Field(gt=0)], ...] = ()
    space: str = "quadranet"
    data: str = "digits"
    strategy: str = "swap"
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

    @model_validator(mode="after")
    def _published_losses_know_one_limit(self) -> Self:
        limits = len(self.latency_limits) + sum(maximum is not None for maximum in self.size_limits.values())
        if self.latency_loss != "multiplier" and limits > 1:
            raise ValueError(
                f"latency_loss {self.latency_loss} is defined for one limit on latency, and there are {limits} "
                "limits; use multiplier"
            )
        return self

    @model_validator(mode="after")
    def _front_ends_in_the_loosest_limit(self) -> Self:
        limits_ms = (*self.tighter_limits_ms, self.max_latency_ms)
        if sorted(set(limits_ms)) != sorted(limits_ms) or max(limits_ms) != self.max_latency_ms:
            raise ValueError(
                f"tighter_limits_ms {', '.join(f'{ms:g}' for ms in self.tighter_limits_ms)} must all differ and "
                f"be below max_latency_ms {self.max_latency_ms:g}"
            )
        return self

    @property
    def latency_limits(self) -> tuple[LatencyLimit, ...]:
        """The limits on all devices, ``device`` first."""
        return LatencyLimit(device=self.device, max_latency_ms=self.max_latency_ms), *self.also

    @property
    def size_limits(self) -> dict[str, int | None]:
        """The largest size allowed, by its name."""
        return {"parameters": self.max_parameters, "macs": self.max_macs, "weight_bytes": self.max_bytes}
