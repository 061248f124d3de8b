"""The contract of a block family, and the registry through which it is found by name."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from pydantic import Field
from torch import nn

from quadnas.config import Settings, validated
from quadnas.errors import ConfigError
from quadnas.latency.kernels import Operator, chain
from quadnas.ops.mlp import MLP, mlp_operators
from quadnas.ops.residual import MetaFormer, Mixer, Residual, pre_norm_operators
from quadnas.registry import Registry
from quadnas.space.layer import Layer


@dataclass(frozen=True, slots=True)
class Ports:
    """What a block connects: channels in and out, and by which factor it shrinks the map."""

    channels_in: int
    channels_out: int
    stride: int


class Block(Settings):
    """One family of blocks; a subclass declares its arguments as fields and registers itself by name.

    A family is one file in ``quadnas/blocks``. Its module maps (N, channels_in, H, W) to (N, channels_out, H',
    W'), both channels-last, with (H', W') = ``output_size``. Whatever it costs on a device must appear in
    ``operators``.
    """

    entangled: ClassVar[frozenset[str]] = frozenset()
    """Arguments in which candidates of a slot may differ and yet share their matrices in a supernet."""

    def check(self, ports: Ports) -> None:
        """Raise ConfigError if the family cannot connect these ports. Default: anything goes."""

    def output_size(self, ports: Ports, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output map. Default: "same" padding, rounded up."""
        return -(-height // ports.stride), -(-width // ports.stride)

    @abstractmethod
    def build(self, ports: Ports) -> nn.Module:
        """A freshly initialised module."""

    @abstractmethod
    def operators(self, ports: Ports, height: int, width: int) -> list[Operator]:
        """The unfused operators that the block runs on a map of this size (batch 1), with their edges."""

    def deployed(self, module: nn.Module) -> nn.Module:
        """What ``build`` made, as it is deployed: layer scale and batch normalisation are folded away.

        The returned module computes the same function in evaluation mode, with plain operators that every export
        target knows; the weights of ``module`` are left as they are. Default: the module itself.
        """
        return module

    def in_supernet(self) -> Self:
        """The same block with the initialisation that suits a candidate of a supernet. Default: unchanged."""
        return self


BLOCKS: Registry[type[Block]] = Registry("block family", "quadnas.blocks", "quadnas.blocks")


class ResidualBlock(Block):
    """Families of residual branches with layer scale, which keep the shape.

    ``expansion`` is the width of their MLP over that of the map; ``layer_scale`` the first value, None for none.
    """

    entangled = frozenset({"kernel"})

    expansion: Annotated[int, Field(ge=1, le=16)]
    layer_scale: Annotated[float, Field(gt=0)] | None = 1e-6

    def check(self, ports: Ports) -> None:
        """The input is added to the output."""
        require_same_shape(next(name for name in BLOCKS if BLOCKS[name] is type(self)), ports)

    def deployed(self, module: nn.Module) -> nn.Module:
        """Without layer scale, of plain operators."""
        assert isinstance(module, MetaFormer | Residual)
        return module.deployed()

    def in_supernet(self) -> Self:
        """Layer scale 0.1: with 1e-6 the architecture gradient would vanish in the first steps."""
        return self if self.layer_scale is None else self.model_copy(update={"layer_scale": 0.1})


class MetaFormerBlock(ResidualBlock):
    """Families x + g1 mixer(LN(x)), then x + g2 MLP(LN(x)), which differ in their mixer."""

    @abstractmethod
    def mixer(self, channels: int) -> Mixer | None:
        """A freshly initialised mixer of positions; None leaves out its half."""

    @abstractmethod
    def mixer_operators(self, channels: int, height: int, width: int) -> list[Operator]:
        """The operators of the mixer as deployed, which read -1; empty without a mixer."""

    def mlp(self, channels: int) -> MLP:
        """A freshly initialised MLP."""
        return MLP(channels, self.expansion)

    def mlp_operators(self, channels: int, height: int, width: int) -> list[Operator]:
        """The operators of the MLP as deployed, which read -1."""
        return mlp_operators(height, width, channels, self.expansion)

    def build(self, ports: Ports) -> MetaFormer:
        """A freshly initialised block."""
        channels = ports.channels_in
        return MetaFormer(channels, self.mixer(channels), self.mlp(channels), self.layer_scale)

    def operators(self, ports: Ports, height: int, width: int) -> list[Operator]:
        """Per half LayerNorm, what it mixes with, and the sum; layer scale is folded into the weights."""
        size = ports.channels_in, height, width
        halves = (self.mixer_operators(*size), self.mlp_operators(*size))
        return chain(*(pre_norm_operators(half) for half in halves if half))


def block_of(layer: Layer) -> tuple[Block, Ports]:
    """The block that a layer names, checked against its ports; raises ConfigError."""
    block = validated(layer.arguments, BLOCKS[layer.block], f"block {layer.block!r}")
    ports = _ports(layer)
    block.check(ports)
    return block, ports


def connects(layer: Layer) -> bool:
    """Whether the family that a layer names can connect its ports; raises ConfigError for wrong arguments."""
    block = validated(layer.arguments, BLOCKS[layer.block], f"block {layer.block!r}")
    try:
        block.check(_ports(layer))
    except ConfigError:
        return False
    return True


def _ports(layer: Layer) -> Ports:
    return Ports(layer.channels_in, layer.channels_out, layer.stride)


def require_same_shape(name: str, ports: Ports) -> None:
    """Raise ConfigError unless input and output have the same shape."""
    if ports.channels_in != ports.channels_out or ports.stride != 1:
        raise ConfigError(
            f"block {name!r} keeps the shape of its input: it cannot turn {ports.channels_in} channels into "
            f"{ports.channels_out} with stride {ports.stride}; use it only inside a stage"
        )


def require_odd(kernel: int) -> int:
    """``kernel``, for a field validator; raises ValueError if it is even, as the map would change its size."""
    if kernel % 2 == 0:
        raise ValueError("Input should be odd, so that the map keeps its size")
    return kernel
