"""The residual branch of modern blocks, x + DropPath(g o branch(x)), and two of them as a MetaFormer block.

Source: MetaFormer (arXiv 2111.11418) for the two pre-norm halves; layer scale g from CaiT (arXiv 2103.17239).
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quadnas.latency.kernels import Kernel, Operator, chain
from quadnas.ops.drop_path import DropPath
from quadnas.ops.layer_norm import ChannelLayerNorm


class Mixer(nn.Module, ABC):
    """A module (N, C, H, W) -> (N, C, H, W), channels-last, whose weights can take in a factor per channel."""

    @abstractmethod
    def deployed(self, scale: Tensor) -> nn.Module:
        """``scale`` (C,) times this function in evaluation mode, of plain operators; leaves the weights alone."""


class Residual(nn.Module):
    """x + DropPath(g o branch(x)), where ``branch`` is modules in sequence, by name.

    (N, C, H, W) -> (N, C, H, W), channels-last. g has one value per channel, ``layer_scale`` at first; None is
    no layer scale.
    """

    def __init__(self, channels: int, layer_scale: float | None, **branch: nn.Module) -> None:
        super().__init__()
        self.channels = channels
        self.branch = nn.Sequential(OrderedDict(branch))
        self.scale = None if layer_scale is None else nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y: Tensor = self.drop_path(self.branch(x))
        return x + y if self.scale is None else torch.addcmul(x, self.scale[:, None, None], y)

    @torch.no_grad()
    def deployed(self) -> "Residual":
        """The same function in evaluation mode, with plain mixers and g folded into the last of them."""
        one = next(self.parameters()).new_ones(self.channels)
        *inner, last = self.branch.named_children()
        branch = {name: m.deployed(one) if isinstance(m, Mixer) else m for name, m in inner}
        name, mixer = last
        assert isinstance(mixer, Mixer)
        branch[name] = mixer.deployed(one if self.scale is None else self.scale)
        return Residual(self.channels, None, **branch)


class MetaFormer(nn.Sequential):
    """x + g1 mixer(LN(x)), then x + g2 MLP(LN(x)); without ``mixer`` only the second half.

    (N, C, H, W) -> (N, C, H, W), channels-last.
    """

    def __init__(self, channels: int, mixer: Mixer | None, mlp: Mixer, layer_scale: float | None) -> None:
        halves = {"spatial": mixer, "channel": mlp}
        super().__init__(
            OrderedDict(
                (name, Residual(channels, layer_scale, norm=ChannelLayerNorm(channels), mixer=half))
                for name, half in halves.items()
                if half is not None
            )
        )

    def deployed(self) -> nn.Sequential:
        """The same function in evaluation mode, without layer scale and with plain mixers."""
        halves: OrderedDict[str, nn.Module] = OrderedDict()
        for name, half in self.named_children():
            assert isinstance(half, Residual)
            halves[name] = half.deployed()
        return nn.Sequential(halves)


def residual_operators(branch: Sequence[Operator]) -> list[Operator]:
    """The operators of a branch whose last has the shape of its input, and the sum; layer scale costs nothing."""
    last = branch[-1].kernel
    join = Kernel("add", last.h, last.w, (last.cout, last.cout), last.cout)
    return [*branch, Operator(join, (-1, len(branch) - 1))]


def pre_norm_operators(mixer: Sequence[Operator]) -> list[Operator]:
    """One half of a MetaFormer block: LayerNorm, the mixer's operators, the sum."""
    first = mixer[0].kernel
    norm = Operator(Kernel("layernorm", first.h, first.w, (first.cin,), first.cin), (-1,))
    return residual_operators(chain([norm], mixer))
