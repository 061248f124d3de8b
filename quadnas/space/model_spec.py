"""The model spec: a self-contained text from which a network is rebuilt anywhere (``quadnas-model/1``)."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from quadnas.config import Settings, read_settings
from quadnas.data.normalization import IMAGENET_NORMALIZATION
from quadnas.space.layer import Layer, Positive

Triple = tuple[float, float, float]


class InputSpec(Settings):
    """What the network is fed at deployment.

    ``size``: side of the square image in pixels; ``channels``: always 3, grey images are repeated; ``mean`` and
    ``std`` normalise pixel values that were scaled to [0, 1].
    """

    size: Positive
    channels: Literal[3] = 3
    mean: Triple
    std: Triple


IMAGENET_INPUT = InputSpec(size=224, mean=IMAGENET_NORMALIZATION.mean, std=IMAGENET_NORMALIZATION.std)


def counted_classes(count: int) -> tuple[str, ...]:
    """Names for classes that have none."""
    return tuple(f"class {number}" for number in range(count))


class ModelSpec(Settings):
    """A network block by block with every argument; what depends on the run stands under ``provenance``."""

    format: Literal["quadnas-model/1"] = "quadnas-model/1"
    name: str
    input: InputSpec
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    layers: Annotated[tuple[Layer, ...], Field(min_length=2)]
    provenance: dict[str, Any] = Field(default_factory=dict)

    @property
    def is_design(self) -> bool:
        """Whether the classes are only counted: the spec is a design, which takes the classes of any data."""
        return self.classes == counted_classes(len(self.classes))

    @field_validator("layers")
    @classmethod
    def _connected(cls, layers: tuple[Layer, ...], info: ValidationInfo) -> tuple[Layer, ...]:
        classes = info.data.get("classes", ())
        given = [3, *(layer.channels_out for layer in layers)]
        taken = [layer.channels_in for layer in layers]
        for number, (have, want) in enumerate(zip(given, taken, strict=False)):
            if have != want:
                raise ValueError(f"{have} channels reach layer {number} (counted from 0), which takes {want}")
        if classes and given[-1] != len(classes):
            raise ValueError(f"the last layer gives {given[-1]} values for {len(classes)} classes")
        return layers


def load_model_spec(path: Path) -> ModelSpec:
    """Read a model spec; raises ConfigError naming the file and the key."""
    return read_settings(path, ModelSpec)
