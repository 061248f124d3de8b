"""LayerNorm over channels, always fused: it runs on the channels-last view."""

from torch import Tensor, nn

EPSILON = 1e-6
"""As in ConvNeXt and QuadraNet; torch's own default is 1e-5."""


def layer_norm(channels: int) -> nn.LayerNorm:
    """LayerNorm over the last dimension, for tensors (..., channels)."""
    return nn.LayerNorm(channels, eps=EPSILON)


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W), channels-last."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
