"""Self-attention inside (shifted) square windows of a map, with a learnt bias per relative position.

Source: Swin Transformer (arXiv 2103.14030), section 3.2 and figure 4; padding as in its detection models.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.latency.kernels import Kernel, Operator, chain
from quadnas.ops.pointwise import Linear
from quadnas.ops.residual import Mixer

WINDOW = 7
HEAD_CHANNELS = 32
_OFFSETS = 2 * WINDOW - 1
_MASKED = -100.0  # as in the source: what is added to the scores of positions that are no neighbours


@dataclass(frozen=True, slots=True)
class Windows:
    """How a map is cut: into ``rows`` x ``columns`` windows of ``side`` pixels, after a roll by ``shift``."""

    side: int
    shift: int
    rows: int
    columns: int

    @classmethod
    def of(cls, height: int, width: int, shift: int) -> "Windows":
        """As the source cuts: a map no larger than a window is one window of its shorter side, never shifted.

        A map whose sides are no multiples of a window's is padded with zeros at the right and at the bottom, and
        the padding takes part in the attention.
        """
        side = min(WINDOW, height, width)
        return cls(
            side, shift if side == WINDOW < min(height, width) else 0, -(-height // side), -(-width // side)
        )

    @property
    def height(self) -> int:
        """Rows of pixels, with padding."""
        return self.rows * self.side

    @property
    def width(self) -> int:
        """Columns of pixels, with padding."""
        return self.columns * self.side

    def bias(self, table: Tensor) -> Tensor:
        """What is added to the scores, from the table (169, heads): (1 or rows columns, heads, side^2, side^2)."""
        at = torch.arange(self.side, device=table.device)
        offset = at[:, None] - at + WINDOW - 1
        index = offset[:, None, :, None] * _OFFSETS + offset[None, :, None, :]
        bias = table[index.flatten(2, 3).flatten(0, 1)].permute(2, 0, 1)[None]
        return bias + self._mask(table) if self.shift else bias

    def _mask(self, like: Tensor) -> Tensor:
        """(rows columns, 1, side^2, side^2): keeps apart what the roll brought together at the border."""

        def region(length: int) -> Tensor:
            at = torch.arange(length, device=like.device)
            return (at >= length - self.side).int() + (at >= length - self.shift).int()

        regions = 3 * region(self.height)[:, None] + region(self.width)
        cells = regions.view(self.rows, self.side, self.columns, self.side).transpose(1, 2)
        pixels = cells.flatten(0, 1).flatten(1)  # (windows, side^2)
        return like.new_tensor(_MASKED) * (pixels[:, None, :, None] != pixels[:, None, None, :])


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T + bias) v for (N, windows heads, T, D) and a bias (1 or windows, heads, T, T).

    Written out; it keeps q, k, v and the probabilities for the backward pass.
    """
    scores = torch.add(bias, (q @ k.mT).unflatten(1, (-1, bias.shape[1])), alpha=scale)
    return scores.softmax(-1).flatten(1, 2).to(v.dtype) @ v


def attend_fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """The same by torch's fused kernels, which a GPU has for a bias too: the probabilities are not kept."""
    windows = q.shape[1] // bias.shape[1]
    mask = bias.expand(windows, -1, -1, -1).flatten(0, 1).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, mask.expand(q.shape[0], -1, -1, -1), scale=scale)


class Attention(nn.Module):
    """Window attention of given layers: (N, C, H, W) -> (N, C, H, W), channels-last.

    ``qkv`` makes 3 C channels, ``leave`` C; ``position_bias`` is the table (169, heads), a bias, so that weight
    decay leaves it alone; ``scale`` multiplies the scores.
    """

    def __init__(
        self, qkv: nn.Module, leave: nn.Module, position_bias: nn.Parameter, shift: int, scale: float
    ) -> None:
        super().__init__()
        self.qkv = qkv
        self.leave = leave
        self.position_bias = position_bias
        self.shift = shift
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        count, channels, height, width = x.shape
        heads = channels // HEAD_CHANNELS
        windows = Windows.of(height, width, self.shift)
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, windows.width - width, 0, windows.height - height))
        if windows.shift:
            x = x.roll((-windows.shift, -windows.shift), (1, 2))
        cells = self.qkv(x).view(
            count, windows.rows, windows.side, windows.columns, windows.side, 3, heads, HEAD_CHANNELS
        )
        # One copy: roll apart, neither the cut into windows nor that into heads moves anything on its own.
        q, k, v = cells.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).flatten(2, 4).unbind()
        y = (attend_fused if x.is_cuda else attend)(q, k, v, windows.bias(self.position_bias), self.scale)
        y = y.view(count, windows.rows, windows.columns, heads, windows.side, windows.side, HEAD_CHANNELS)
        y = y.permute(0, 1, 4, 2, 5, 3, 6).reshape(count, windows.height, windows.width, channels)
        if windows.shift:
            y = y.roll((windows.shift, windows.shift), (1, 2))
        return self.leave(y[:, :height, :width]).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class WindowAttention(Attention, Mixer):
    """Attention with heads of 32 channels in 7x7 windows, shifted by ``shift`` pixels."""

    qkv: Linear
    leave: Linear

    def __init__(self, channels: int, shift: int) -> None:
        table = nn.Parameter(torch.empty(_OFFSETS**2, channels // HEAD_CHANNELS))
        nn.init.trunc_normal_(table, std=0.02)
        qkv, leave = Linear(channels, 3 * channels), Linear(channels, channels)
        super().__init__(qkv, leave, table, shift, HEAD_CHANNELS**-0.5)

    def deployed(self, scale: Tensor) -> Attention:
        """Plain layers: the queries take in the scale of the scores, the last layer ``scale``."""
        queries = torch.ones_like(scale).repeat(3)
        queries[: scale.numel()] = self.scale
        table = nn.Parameter(self.position_bias.detach().clone())
        return Attention(self.qkv.deployed(queries), self.leave.deployed(scale), table, self.shift, 1.0)


def window_attention_operators(channels: int, height: int, width: int, shift: int) -> list[Operator]:
    """Linear layers as 1x1 convolutions, two products of matrices, and every copy that the cut into windows takes.

    The operators between the products see one map per head and window: ``h`` of them, with a row per pixel.
    """
    windows = Windows.of(height, width, shift)
    heads, pixels = channels // HEAD_CHANNELS, windows.side**2
    padded = (windows.height, windows.width) != (height, width)

    def on_map(op: str, cin: int, cout: int) -> Kernel:
        return Kernel(op, windows.height, windows.width, (cin,), cout)

    def on_heads(op: str, inputs: tuple[int, ...], cout: int) -> Kernel:
        return Kernel(op, heads * windows.rows * windows.columns, pixels, inputs, cout)

    roll = [on_map("roll", channels, channels)] if windows.shift else []
    front = [
        *([Kernel("pad", height, width, (channels,), channels)] if padded else []),
        *roll,
        on_map("conv", channels, 3 * channels),
        on_map("transpose", 3 * channels, 3 * channels),
        on_heads("matmul", (HEAD_CHANNELS,), pixels),
        on_heads("add", (pixels, pixels), pixels),
        on_heads("softmax", (pixels,), pixels),
    ]
    back = [
        on_map("transpose", channels, channels),
        *roll,
        *([on_map("slice", channels, channels)] if padded else []),
        Kernel("conv", height, width, (channels,), channels),
    ]
    scores = chain(*([Operator(kernel, (-1,))] for kernel in front))
    values = Operator(on_heads("matmul", (pixels,), HEAD_CHANNELS), (len(front) - 1, len(front) - 4))
    return chain([*scores, values], *([Operator(kernel, (-1,))] for kernel in back))
