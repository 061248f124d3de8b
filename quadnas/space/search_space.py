"""A search space: a stem, stages of searchable slots with their candidates, and a head. No torch."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from quadnas.config import Settings, read_settings
from quadnas.errors import ConfigError
from quadnas.registry import did_you_mean
from quadnas.resources import locate
from quadnas.space.architecture import Architecture
from quadnas.space.layer import Layer, Positive


class BlockChoice(Settings):
    """A block family with its arguments; in a candidate, an argument that is a list offers every value."""

    model_config = ConfigDict(extra="allow")

    block: str
    stride: Positive = 1

    @property
    def arguments(self) -> dict[str, Any]:
        """The keys beside ``block`` and ``stride``."""
        return dict(self.model_extra or {})

    def layer(self, channels_in: int, channels_out: int) -> Layer:
        """The block between these channels."""
        return Layer(
            block=self.block,
            channels_in=channels_in,
            channels_out=channels_out,
            stride=self.stride,
            arguments=self.arguments,
        )


class Stage(Settings):
    """``depth`` slots of equal width; ``candidates`` replaces the space's list."""

    channels: Positive
    depth: Positive
    candidates: tuple[BlockChoice, ...] | None = None


class SpaceFile(Settings):
    """The YAML form of a space (``search_spaces/*.yaml``)."""

    format: Literal["quadnas-space/1"]
    description: str
    candidates: tuple[BlockChoice, ...] = ()
    stem: BlockChoice
    downsample: BlockChoice
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    head: BlockChoice


@dataclass(frozen=True, slots=True)
class Slot:
    """A searchable position: its stage and its candidates, a label for each layer it could be."""

    stage: int
    candidates: dict[str, Layer]

    @property
    def labels(self) -> tuple[str, ...]:
        """Candidate labels in the order of the architecture parameters."""
        return tuple(self.candidates)


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Fixed layers and slots in the order in which data flows through them.

    The head's ``channels_out`` is the number of classes, known only when a network is asked for.
    """

    name: str
    description: str
    positions: tuple[Layer | Slot, ...]
    head: Layer

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The searchable positions in order."""
        return tuple(position for position in self.positions if isinstance(position, Slot))

    @property
    def size(self) -> int:
        """The number of architectures."""
        count = 1
        for slot in self.slots:
            count *= len(slot.candidates)
        return count

    def architecture(self, choices: Sequence[int]) -> Architecture:
        """The architecture with candidate ``choices[s]`` in slot s."""
        stages: dict[int, list[str]] = {}
        for slot, choice in zip(self.slots, choices, strict=True):
            stages.setdefault(slot.stage, []).append(slot.labels[choice])
        return Architecture(tuple(tuple(stage) for stage in stages.values()))

    def choices(self, architecture: Architecture) -> tuple[int, ...]:
        """The candidate index of every slot; raises ConfigError if the architecture is not of this space."""
        if len(architecture.labels) != len(self.slots):
            raise ConfigError(
                f"{self.name} has {len(self.slots)} slots, the architecture has {len(architecture.labels)}"
            )
        for slot, label in zip(self.slots, architecture.labels, strict=True):
            if label not in slot.candidates:
                raise ConfigError(
                    f"{self.name} has no candidate {label!r} there; {did_you_mean(label, slot.labels)}"
                )
        return tuple(
            slot.labels.index(label) for slot, label in zip(self.slots, architecture.labels, strict=True)
        )

    def layers(self, choices: Sequence[int], classes: int) -> tuple[Layer, ...]:
        """All layers of the network with candidate ``choices[s]`` in slot s, ending in ``classes`` logits."""
        chosen = iter(choices)
        body = tuple(
            position.candidates[position.labels[next(chosen)]] if isinstance(position, Slot) else position
            for position in self.positions
        )
        return (*body, self.head.model_copy(update={"channels_out": classes}))

    def sample(self, generator: random.Random) -> tuple[int, ...]:
        """Candidate indices of an architecture drawn uniformly."""
        return tuple(generator.randrange(len(slot.candidates)) for slot in self.slots)


def load_space(name: str) -> SearchSpace:
    """The search space of a packaged name, a path, or a name under $QUADNAS_HOME; raises ConfigError."""
    path = locate("search_spaces", name)
    return space_from(read_settings(path, SpaceFile), path)


def space_from(file: SpaceFile, path: Path) -> SearchSpace:
    """Lay the file out as a sequence of layers and slots; ``path`` names it in errors."""
    channels = file.stages[0].channels
    positions: list[Layer | Slot] = [file.stem.layer(3, channels)]
    for number, stage in enumerate(file.stages):
        if number:
            positions.append(file.downsample.layer(channels, stage.channels))
        channels = stage.channels
        choices = file.candidates if stage.candidates is None else stage.candidates
        candidates = dict(_expand(choices, channels, f"{path}: stages.{number}"))
        positions.extend(Slot(number, candidates) for _ in range(stage.depth))
    return SearchSpace(path.stem, file.description, tuple(positions), file.head.layer(channels, 1))


def _expand(choices: Sequence[BlockChoice], channels: int, where: str) -> Iterator[tuple[str, Layer]]:
    seen: set[str] = set()
    for choice in choices:
        names = list(choice.arguments)
        options = [v if isinstance(v, tuple) else (v,) for v in choice.arguments.values()]
        for values in product(*options):
            arguments = dict(zip(names, values, strict=True))
            label = "-".join([choice.block, *(f"{key[0]}{value}" for key, value in arguments.items())])
            if label in seen:
                raise ConfigError(f"{where}: two candidates would be labelled {label!r}; drop one of them")
            seen.add(label)
            yield label, choice.layer(channels, channels).model_copy(update={"arguments": arguments})
    if not seen:
        raise ConfigError(f"{where}: no candidates; list some under 'candidates'")
