"""Recursive gated convolution: products with depthwise-filtered features of rising width, in sequence.

Source: HorNet (arXiv 2207.14284), section 3.1.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from quadnas.latency.kernels import Kernel, Operator
from quadnas.ops.depthwise import DepthwiseMixer
from quadnas.ops.pointwise import Linear
from quadnas.ops.residual import Mixer

_KERNEL = 7
_GATE_SCALE = 1 / 3


def gate_widths(channels: int, order: int) -> list[int]:
    """The widths of the ``order`` gates: each twice the one before, the last ``channels``."""
    return [channels >> halvings for halvings in reversed(range(order))]


class GatedConvolution(nn.Module):
    """y = p o q_1, then y = step_i(y) o q_i for every further gate, then leave(y).

    (N, C, H, W) -> (N, C, H, W), channels-last. ``enter`` makes 2 C channels: p, as wide as the first gate, and
    the input of the depthwise convolution ``gates``, whose output is cut into the gates q_i.
    """

    def __init__(
        self,
        widths: Sequence[int],
        enter: nn.Module,
        gates: nn.Module,
        steps: nn.ModuleList,
        leave: nn.Module,
    ) -> None:
        super().__init__()
        self.widths = list(widths)
        self.enter = enter
        self.gates = gates
        self.steps = steps
        self.leave = leave

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y, filtered = self.enter(x.permute(0, 2, 3, 1)).split((self.widths[0], sum(self.widths)), dim=-1)
        gates = self.gates(filtered.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).split(self.widths, dim=-1)
        y = y * gates[0]
        for step, gate in zip(self.steps, gates[1:], strict=True):
            y = step(y) * gate
        return self.leave(y).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class _ScaledDepthwise(DepthwiseMixer):
    """A third of a depthwise convolution, as the source has it: the weights are scaled, not the map."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        y: Tensor = self._conv_forward(x, _GATE_SCALE * self.weight, _GATE_SCALE * self.bias)
        return y

    def deployed(self, scale: Tensor) -> nn.Conv2d:
        return super().deployed(_GATE_SCALE * scale)


class GatedConvolutionMixer(GatedConvolution, Mixer):
    """Recursive gated convolution with 7x7 gates and biases; ``channels`` must be divisible by 2^(order - 1)."""

    enter: Linear
    gates: _ScaledDepthwise
    leave: Linear

    def __init__(self, channels: int, order: int) -> None:
        widths = gate_widths(channels, order)
        super().__init__(
            widths,
            enter=Linear(channels, 2 * channels),
            gates=_ScaledDepthwise(sum(widths), _KERNEL),
            steps=nn.ModuleList(Linear(narrow, wide) for narrow, wide in pairwise(widths)),
            leave=Linear(channels, channels),
        )

    def deployed(self, scale: Tensor) -> GatedConvolution:
        """Plain layers; the last is scaled."""
        steps = [step for step in self.steps if isinstance(step, Linear)]
        return GatedConvolution(
            self.widths,
            self.enter.deployed(scale.new_ones(self.enter.out_features)),
            self.gates.deployed(scale.new_ones(self.gates.out_channels)),
            nn.ModuleList(step.deployed(scale.new_ones(step.out_features)) for step in steps),
            self.leave.deployed(scale),
        )


def gated_convolution_operators(channels: int, order: int, height: int, width: int) -> list[Operator]:
    """1x1 convolutions, a depthwise one and products.

    Both cuts into gates are a copy of all channels, described as the one that was measured: a ``split`` in halves.
    """
    widths = gate_widths(channels, order)
    wide = sum(widths)

    def kernel(op: str, inputs: tuple[int, ...], cout: int, side: int = 1) -> Kernel:
        return Kernel(op, height, width, inputs, cout, side)

    found = [
        Operator(kernel("conv", (channels,), 2 * channels), (-1,)),
        Operator(kernel("split", (2 * channels,), channels), (0,)),
        Operator(kernel("dwconv", (wide,), wide, _KERNEL), (1,)),
        Operator(kernel("split", (wide,), wide // 2), (2,)),
        Operator(kernel("mul", (widths[0], widths[0]), widths[0]), (1, 3)),
    ]
    for narrow, gate in pairwise(widths):
        found.append(Operator(kernel("conv", (narrow,), gate), (len(found) - 1,)))
        found.append(Operator(kernel("mul", (gate, gate), gate), (len(found) - 1, 3)))
    return [*found, Operator(kernel("conv", (channels,), channels), (len(found) - 1,))]
