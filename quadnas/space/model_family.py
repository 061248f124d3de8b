"""Published networks by name: a family file (``models/*.yaml``) lists models that share stem, blocks and head.

It speaks the language of a search space; only a list means something else here: one value per stage.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from quadnas.config import Settings, read_settings, validated
from quadnas.errors import ConfigError
from quadnas.resources import available, is_name
from quadnas.space.layer import Layer, Positive
from quadnas.space.model_spec import IMAGENET_INPUT, ModelSpec, counted_classes, load_model_spec
from quadnas.space.net_config import NET_CONFIG_SUFFIXES, load_net_config
from quadnas.space.search_space import BlockChoice, FixedBlock, FixedBlocks

CLASSES = 1000
"""ImageNet's."""


class StageBlock(Settings):
    """A block of the stages; an argument, or ``stride``, that is a list has one value per stage."""

    model_config = ConfigDict(extra="allow")

    block: str

    def of_stage(self, stage: int, stages: int, where: str) -> BlockChoice:
        """The block with the arguments of one of ``stages`` stages; raises ConfigError naming ``where``."""
        arguments: dict[str, Any] = {}
        for key, value in (self.model_extra or {}).items():
            if isinstance(value, tuple) and len(value) != stages:
                raise ConfigError(
                    f"{where}: {key!r} lists {len(value)} values for {stages} stages; give one each"
                )
            arguments[key] = value[stage] if isinstance(value, tuple) else value
        return validated({"block": self.block, **arguments}, BlockChoice, where)


class Design(Settings):
    """One model of a family: width and number of blocks of every stage; ``blocks`` replaces the family's."""

    channels: Annotated[tuple[Positive, ...], Field(min_length=1)]
    depths: tuple[Positive, ...]
    blocks: tuple[StageBlock, ...] | None = None

    @model_validator(mode="after")
    def _stages_agree(self) -> "Design":
        if len(self.channels) != len(self.depths):
            raise ValueError(f"'channels' names {len(self.channels)} stages, 'depths' {len(self.depths)}")
        return self


class ModelFamily(Settings):
    """The YAML form of a family (``models/*.yaml``).

    Several ``blocks`` take turns within a stage. Without ``downsample`` the first block of a stage changes the
    width, with its own ``stride``; the other blocks of a stage always have stride 1.
    """

    format: Literal["quadnas-models/1"]
    description: str
    stem: FixedBlock
    downsample: BlockChoice | None = None
    blocks: tuple[StageBlock, ...] = ()
    head: FixedBlocks
    models: Annotated[dict[str, Design], Field(min_length=1)]

    @field_validator("models")
    @classmethod
    def _names(cls, models: dict[str, Design]) -> dict[str, Design]:
        for name in models:
            if not is_name(name):
                raise ValueError(f"{name!r} cannot name a model: use letters, digits, - and _")
        return models

    def layers(self, name: str, path: Path) -> tuple[Layer, ...]:
        """All layers of a model of the file at ``path``; raises ConfigError."""
        design, where = self.models[name], f"{path}: models.{name}"
        blocks = self.blocks if design.blocks is None else design.blocks
        if not blocks:
            raise ConfigError(f"{where}: no blocks; list some under 'blocks'")
        channels, stages = self.stem.channels or design.channels[0], len(design.channels)
        layers = [self.stem.layer(3, channels)]
        for stage, (width, depth) in enumerate(zip(design.channels, design.depths, strict=True)):
            if stage and self.downsample:
                layers.append(self.downsample.layer(channels, width))
                channels = width
            choices = [block.of_stage(stage, stages, where) for block in blocks]
            for number in range(depth):
                layer = choices[number % len(choices)].layer(channels, width)
                layers.append(layer.model_copy(update={"stride": 1}) if number else layer)
                channels = width
        for block in self.head:
            width = block.channels or CLASSES
            layers.append(block.layer(channels, width))
            channels = width
        return tuple(layers)


def find_model(source: str | Path) -> ModelSpec:
    """The model of a name, or of the file at a path: a model spec, or ProxylessNAS's net.config.

    A model of a name, and one of a net.config, is for ImageNet's 1000 classes, which are counted, not named.
    Raises ConfigError.
    """
    path = Path(source)
    if is_name(str(source)):
        (model,) = find_models(str(source))
        return model
    return load_net_config(path) if path.suffix in NET_CONFIG_SUFFIXES else load_model_spec(path)


def find_models(name: str | None = None) -> list[ModelSpec]:
    """The model of a name, or all models that have one, family by family; raises ConfigError."""
    named: dict[str, tuple[ModelFamily, Path]] = {}
    for path in available("models").values():
        family = read_settings(path, ModelFamily)
        for model in family.models:
            if model in named:
                raise ConfigError(
                    f"{path}: the model {model!r} is in {named[model][1]} too; rename one of them"
                )
            named[model] = family, path
    if name is not None and name not in named:
        raise ConfigError(
            f"no model {name!r}; {_near(name, named)}quadnas models lists all {len(named)}; or give a model spec "
            "as a path such as ./model.yaml, or put a family of your own under $QUADNAS_HOME/models"
        )
    return [_spec(model, *named[model]) for model in (named if name is None else [name])]


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known)
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""


def _spec(name: str, family: ModelFamily, path: Path) -> ModelSpec:
    data = {
        "name": name,
        "input": IMAGENET_INPUT.model_dump(),
        "classes": counted_classes(CLASSES),
        "layers": tuple(layer.model_dump() for layer in family.layers(name, path)),
        "provenance": {"family": path.stem},
    }
    return validated(data, ModelSpec, f"{path}: models.{name}")
