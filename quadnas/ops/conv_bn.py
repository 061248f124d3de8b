"""Convolution, batch normalisation and ReLU6: the unit of mobile networks, as module and as operators."""

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from quadnas.errors import ConfigError
from quadnas.latency.kernels import Kernel, Operator

EPSILON = 1e-3
"""As in ProxylessNAS and MobileNetV2; torch's own default is 1e-5."""


class ConvBN(nn.Sequential):
    """Convolution with "same" zero padding and an odd kernel, batch normalisation, and ReLU6 if ``activation``.

    (N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride)); ``groups`` as in ``nn.Conv2d``. Initialised as in
    MobileNetV2 (arXiv 1801.04381) and ProxylessNAS: normal with the fan of the output.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        activation: bool = True,
    ) -> None:
        convolution = nn.Conv2d(
            channels_in, channels_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
        modules: list[nn.Module] = [convolution, nn.BatchNorm2d(channels_out, eps=EPSILON)]
        super().__init__(*modules, *([nn.ReLU6()] if activation else []))

    def folded(self) -> nn.Sequential:
        """The same function in evaluation mode, with batch normalisation inside the convolution."""
        convolution, norm, *activation = self.eval()
        assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        return nn.Sequential(fuse_conv_bn_eval(convolution, norm), *activation)


def conv_bn_operators(
    convolution: Kernel, source: int, first: int, *, activation: bool = True
) -> list[Operator]:
    """The operators of a ``ConvBN`` that reads operator ``source`` and stands at position ``first``."""
    size = -(-convolution.h // convolution.stride), -(-convolution.w // convolution.stride)
    channels = convolution.cout
    behind = ["bn", "relu6"] if activation else ["bn"]
    return [
        Operator(convolution, (source,)),
        *(
            Operator(Kernel(op, *size, (channels,), channels), (first + position,))
            for position, op in enumerate(behind)
        ),
    ]


def require_mobile_stride(block: str, stride: int) -> None:
    """Raise ConfigError for a stride above 2, which no mobile network has."""
    if stride > 2:
        raise ConfigError(
            f"block {block!r} has stride 1 or 2, not {stride}; use 'patchify' or several blocks to shrink more"
        )
