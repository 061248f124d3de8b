"""A search space: a stem, stages of searchable slots with their candidates, and a head. No torch."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from quadnas.config import Settings
from quadnas.errors import ConfigError
from quadnas.registry import did_you_mean
from quadnas.space.architecture import Architecture
from quadnas.space.layer import Layer, Positive


class Candidate(Settings):
    """A block family with its arguments; an argument that is a list offers every value."""

    model_config = ConfigDict(extra="allow")

    block: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The keys beside those that are declared."""
        return dict(self.model_extra or {})


class BlockChoice(Candidate):
    """A block family with its arguments and its stride."""

    stride: Positive = 1

    def layer(self, channels_in: int, channels_out: int) -> Layer:
        """The block between these channels."""
        return Layer(
            block=self.block,
            channels_in=channels_in,
            channels_out=channels_out,
            stride=self.stride,
            arguments=self.arguments,
        )


class FixedBlock(BlockChoice):
    """A block of the stem or head; ``channels`` it gives, by default those of the first stage or the classes."""

    channels: Positive | None = None


def _one_or_several(blocks: Any) -> Any:
    return (blocks,) if isinstance(blocks, dict) else blocks


FixedBlocks = Annotated[tuple[FixedBlock, ...], Field(min_length=1), BeforeValidator(_one_or_several)]
"""One block, or a list of blocks in sequence."""


class Stage(Settings):
    """``depth`` slots of equal width; ``candidates`` replaces the space's list, ``stride`` is the first slot's."""

    channels: Positive
    depth: Positive
    stride: Positive = 1
    candidates: tuple[Candidate, ...] | None = None


class SpaceFile(Settings):
    """The YAML form of a space (``search_spaces/*.yaml``).

    Without ``downsample`` the first slot of a stage changes the width and the size of the map itself; candidates
    that cannot do that are left out of it.
    """

    format: Literal["quadnas-space/1"]
    description: str
    candidates: tuple[Candidate, ...] = ()
    stem: FixedBlocks
    downsample: BlockChoice | None = None
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    head: FixedBlocks


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


def space_from(file: SpaceFile, path: Path, connects: Callable[[Layer], bool]) -> SearchSpace:
    """Lay the file out as a sequence of layers and slots; ``path`` names it in errors.

    ``connects``: whether a layer's family can connect its channels and stride. Raises ConfigError.
    """
    positions: list[Layer | Slot] = []
    channels = 3

    def fixed(block: BlockChoice, width: int) -> None:
        nonlocal channels
        positions.append(block.layer(channels, width))
        channels = width

    for block in file.stem:
        fixed(block, block.channels or file.stages[0].channels)
    for number, stage in enumerate(file.stages):
        if number and file.downsample:
            fixed(file.downsample, stage.channels)
        choices = file.candidates if stage.candidates is None else stage.candidates
        for stride in (stage.stride, *(1,) * (stage.depth - 1)):
            ports = channels, stage.channels, stride
            positions.append(Slot(number, _candidates(choices, ports, connects, f"{path}: stages.{number}")))
            channels = stage.channels
    *front, head = file.head
    for block in front:
        fixed(block, block.channels or channels)
    if head.channels:
        raise ConfigError(f"{path}: head: the last block gives the classes of the data; drop its 'channels'")
    return SearchSpace(path.stem, file.description, tuple(positions), head.layer(channels, 1))


def _candidates(
    choices: Sequence[Candidate], ports: tuple[int, int, int], connects: Callable[[Layer], bool], where: str
) -> dict[str, Layer]:
    """The candidates of a slot between ``ports``: channels in and out, stride."""
    cin, cout, stride = ports
    found: dict[str, Layer] = {}
    for label, block, arguments in _expand(choices):
        if label in found:
            raise ConfigError(f"{where}: two candidates would be labelled {label!r}; drop one of them")
        found[label] = Layer(
            block=block, channels_in=cin, channels_out=cout, stride=stride, arguments=arguments
        )
    if not found:
        raise ConfigError(f"{where}: no candidates; list some under 'candidates'")
    if (cin, stride) == (cout, 1):
        return found
    changing = {label: layer for label, layer in found.items() if connects(layer)}
    if not changing:
        raise ConfigError(
            f"{where}: none of the candidates can turn {cin} channels into {cout} with stride {stride}, which the "
            "first slot must do; add one that can, or a 'downsample' layer"
        )
    return changing


def _expand(choices: Sequence[Candidate]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for choice in choices:
        names = list(choice.arguments)
        options = [v if isinstance(v, tuple) else (v,) for v in choice.arguments.values()]
        for values in product(*options):
            arguments = dict(zip(names, values, strict=True))
            label = "-".join([choice.block, *(f"{key[0]}{value}" for key, value in arguments.items())])
            yield label, choice.block, arguments
