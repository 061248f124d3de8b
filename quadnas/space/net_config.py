"""ProxylessNAS's ``net.config``: the JSON in which its searches leave a network, as model spec and back.

Schema: the released code (mit-han-lab/proxylessnas). Its networks are a convolution, inverted residuals of which
some are skipped, a 1x1 convolution and a linear layer; whatever else the schema can say is refused.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from quadnas.config import Settings, read_text, validated
from quadnas.errors import ConfigError
from quadnas.space.layer import Layer, Positive
from quadnas.space.model_spec import IMAGENET_INPUT, ModelSpec, counted_classes

NET_CONFIG_SUFFIXES = (".config", ".json")


class _Norm(Settings):
    momentum: Annotated[float, Field(ge=0.1, le=0.1)] = 0.1
    eps: Annotated[float, Field(ge=1e-3, le=1e-3)] = 1e-3


class _Conv(Settings):
    name: Literal["ConvLayer"] = "ConvLayer"
    kernel_size: Positive
    stride: Positive
    dilation: Literal[1] = 1
    groups: Literal[1] = 1
    bias: Literal[False] = False
    has_shuffle: Literal[False] = False
    in_channels: Positive
    out_channels: Positive
    use_bn: Literal[True] = True
    act_func: Literal["relu6"] = "relu6"
    dropout_rate: Literal[0] = 0
    ops_order: Literal["weight_bn_act"] = "weight_bn_act"


class _Linear(Settings):
    name: Literal["LinearLayer"] = "LinearLayer"
    in_features: Positive
    out_features: Positive
    bias: Literal[True] = True
    use_bn: Literal[False] = False
    act_func: None = None
    dropout_rate: Literal[0] = 0
    ops_order: Literal["weight_bn_act"] = "weight_bn_act"


class _Inverted(Settings):
    name: Literal["MBInvertedConvLayer"] = "MBInvertedConvLayer"
    in_channels: Positive
    out_channels: Positive
    kernel_size: Positive
    stride: Positive
    expand_ratio: Positive


class _Zero(Settings):
    name: Literal["ZeroLayer"] = "ZeroLayer"
    stride: Literal[1] = 1


class _Shortcut(Settings):
    name: Literal["IdentityLayer"] = "IdentityLayer"
    in_channels: Positive
    out_channels: Positive
    use_bn: Literal[False] = False
    act_func: None = None
    dropout_rate: Literal[0] = 0
    ops_order: Literal["weight_bn_act"] = "weight_bn_act"


class _Residual(Settings):
    name: Literal["MobileInvertedResidualBlock"] = "MobileInvertedResidualBlock"
    mobile_inverted_conv: Annotated[_Inverted | _Zero, Field(discriminator="name")]
    shortcut: _Shortcut | None

    @model_validator(mode="after")
    def _joined(self) -> "_Residual":
        """The shortcut is where ProxylessNAS puts it: wherever the shape stays."""
        inner, shortcut = self.mobile_inverted_conv, self.shortcut
        ends = shortcut and (shortcut.in_channels, shortcut.out_channels)
        if isinstance(inner, _Zero):
            fits = shortcut is not None and shortcut.in_channels == shortcut.out_channels
        else:
            same = inner.stride == 1 and inner.in_channels == inner.out_channels
            fits = ends == ((inner.in_channels, inner.out_channels) if same else None)
        if not fits:
            raise ValueError("a shortcut must join exactly the blocks that keep the shape of their input")
        return self

    @property
    def layer(self) -> Layer:
        """The block as a layer of a model spec."""
        inner = self.mobile_inverted_conv
        if isinstance(inner, _Zero):
            assert self.shortcut
            width = self.shortcut.in_channels
            return Layer(block="identity", channels_in=width, channels_out=width)
        return Layer(
            block="mbconv", channels_in=inner.in_channels, channels_out=inner.out_channels, stride=inner.stride,
            arguments={"kernel": inner.kernel_size, "expansion": inner.expand_ratio},
        )  # fmt: skip


class NetConfig(Settings):
    """The whole file; every key that has but one value here is one that our blocks fix."""

    name: Literal["ProxylessNASNets"] = "ProxylessNASNets"
    bn: _Norm = _Norm()
    first_conv: _Conv
    feature_mix_layer: _Conv
    classifier: _Linear
    blocks: tuple[_Residual, ...]

    def spec(self, name: str, source: str) -> ModelSpec:
        """The spec called ``name``, for ImageNet's input and unnamed classes; ConfigError names ``source``."""
        head = self.classifier
        layers = (
            _conv_layer(self.first_conv),
            *(block.layer for block in self.blocks),
            _conv_layer(self.feature_mix_layer),
            Layer(block="classifier", channels_in=head.in_features, channels_out=head.out_features,
                  arguments={"norm": "none"}),
        )  # fmt: skip
        classes = counted_classes(head.out_features)
        found = {"name": name, "input": IMAGENET_INPUT, "classes": classes, "layers": layers}
        return validated(found, ModelSpec, source)


def load_net_config(path: Path) -> ModelSpec:
    """Read a ``net.config``; raises ConfigError naming the file and the key."""
    return parse_net_config(read_text(path), str(path))


def parse_net_config(text: str, source: str) -> ModelSpec:
    """The model spec of a ``net.config``'s text, called as the file ``source``; raises ConfigError."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not a valid JSON file: {error}") from None
    return validated(data, NetConfig, source).spec(Path(source).stem, source)


def write_net_config(spec: ModelSpec) -> str:
    """The JSON text of a network whose layers have all arguments written out.

    Raises ConfigError naming the first layer that the schema has no words for.
    """
    if len(spec.layers) < 3:
        raise ConfigError(f"a net.config holds at least three layers; {spec.name} has {len(spec.layers)}")
    first, *blocks, mix, head = spec.layers
    found = {
        "first_conv": _conv(0, first),
        "blocks": tuple(_residual(number, layer) for number, layer in enumerate(blocks, 1)),
        "feature_mix_layer": _conv(len(spec.layers) - 2, mix),
        "classifier": {"in_features": head.channels_in, "out_features": head.channels_out},
    }
    _require(len(spec.layers) - 1, head, "classifier", {"norm": "none"})
    config = validated(found, NetConfig, spec.name)
    return json.dumps(config.model_dump(), indent=4) + "\n"


def _conv(number: int, layer: Layer) -> dict[str, Any]:
    kernel = layer.arguments.get("kernel")
    _require(number, layer, "conv_bn", {"kernel": kernel})
    return {"kernel_size": kernel, "stride": layer.stride, **_channels(layer)}


def _residual(number: int, layer: Layer) -> dict[str, Any]:
    shortcut = _channels(layer) if layer.stride == 1 and layer.channels_in == layer.channels_out else None
    if layer.block == "identity":
        return {"mobile_inverted_conv": {"name": "ZeroLayer"}, "shortcut": shortcut}
    kernel, ratio = layer.arguments.get("kernel"), layer.arguments.get("expansion")
    _require(number, layer, "mbconv", {"kernel": kernel, "expansion": ratio})
    inner = {"kernel_size": kernel, "stride": layer.stride, "expand_ratio": ratio, **_channels(layer)}
    return {"mobile_inverted_conv": {"name": "MBInvertedConvLayer", **inner}, "shortcut": shortcut}


def _channels(layer: Layer) -> dict[str, int]:
    return {"in_channels": layer.channels_in, "out_channels": layer.channels_out}


def _require(number: int, layer: Layer, block: str, arguments: dict[str, Any]) -> None:
    if (layer.block, layer.arguments) != (block, arguments):
        raise ConfigError(
            f"a net.config holds conv_bn, then mbconv and identity, then conv_bn and a classifier without norm; "
            f"layer {number} (counted from 0) is {layer.block!r} with {layer.arguments}"
        )


def _conv_layer(conv: _Conv) -> Layer:
    return Layer(
        block="conv_bn", channels_in=conv.in_channels, channels_out=conv.out_channels, stride=conv.stride,
        arguments={"kernel": conv.kernel_size},
    )  # fmt: skip
