"""ProxylessNAS's net.config: a small one by hand, laws of reading and writing, the four published networks."""

import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quadnas.errors import ConfigError
from quadnas.report.models import list_models
from quadnas.space.layer import Layer
from quadnas.space.model_family import find_model
from quadnas.space.model_spec import IMAGENET_INPUT, ModelSpec, counted_classes
from quadnas.space.net_config import parse_net_config, write_net_config
from tests.structure.source import ROOT

NEVER_MIND = {"dropout_rate": 0, "ops_order": "weight_bn_act"}


def convolution(kernel: int, stride: int, cin: int, cout: int) -> dict[str, Any]:
    return {
        "name": "ConvLayer", "kernel_size": kernel, "stride": stride, "dilation": 1, "groups": 1, "bias": False,
        "has_shuffle": False, "in_channels": cin, "out_channels": cout, "use_bn": True, "act_func": "relu6",
        **NEVER_MIND,
    }  # fmt: skip


def block(inner: dict[str, Any], kept: int | None) -> dict[str, Any]:
    """``kept``: the channels of the shortcut, if there is one."""
    shortcut = kept and {
        "name": "IdentityLayer", "in_channels": kept, "out_channels": kept, "use_bn": False, "act_func": None,
        **NEVER_MIND,
    }  # fmt: skip
    return {"name": "MobileInvertedResidualBlock", "mobile_inverted_conv": inner, "shortcut": shortcut}


def inverted(kernel: int, stride: int, ratio: int, cin: int, cout: int) -> dict[str, Any]:
    return {
        "name": "MBInvertedConvLayer", "in_channels": cin, "out_channels": cout, "kernel_size": kernel,
        "stride": stride, "expand_ratio": ratio,
    }  # fmt: skip


SMALL: dict[str, Any] = {
    "name": "ProxylessNASNets",
    "bn": {"momentum": 0.1, "eps": 0.001},
    "first_conv": convolution(3, 2, 3, 8),
    "feature_mix_layer": convolution(1, 1, 12, 20),
    "classifier": {
        "name": "LinearLayer", "in_features": 20, "out_features": 5, "bias": True, "use_bn": False,
        "act_func": None, **NEVER_MIND,
    },
    "blocks": [
        block(inverted(3, 1, 1, 8, 8), 8),
        block({"name": "ZeroLayer", "stride": 1}, 8),
        block(inverted(5, 2, 3, 8, 12), None),
    ],
}  # fmt: skip

LAYERS = (
    Layer(block="conv_bn", channels_in=3, channels_out=8, stride=2, arguments={"kernel": 3}),
    Layer(block="mbconv", channels_in=8, channels_out=8, arguments={"kernel": 3, "expansion": 1}),
    Layer(block="identity", channels_in=8, channels_out=8),
    Layer(block="mbconv", channels_in=8, channels_out=12, stride=2, arguments={"kernel": 5, "expansion": 3}),
    Layer(block="conv_bn", channels_in=12, channels_out=20, arguments={"kernel": 1}),
    Layer(block="classifier", channels_in=20, channels_out=5, arguments={"norm": "none"}),
)


def read(config: object) -> ModelSpec:
    return parse_net_config(json.dumps(config), "runs/net.config")


def changed(path: str, value: object) -> dict[str, Any]:
    """``SMALL`` with another value at a dotted path."""
    config = deepcopy(SMALL)
    *way, last = path.split(".")
    found: Any = config
    for step in way:
        found = found[int(step) if step.isdecimal() else step]
    found[last] = value
    return config


def test_a_small_network_is_read_layer_by_layer_and_written_back() -> None:
    spec = read(SMALL)
    assert (spec.name, spec.layers, spec.is_design, len(spec.classes)) == ("net", LAYERS, True, 5)
    assert json.loads(write_net_config(spec)) == SMALL


def test_its_size_by_hand() -> None:
    """Convolution and scale and shift per layer; maps 112, 112, 56 after strides of 2."""
    parameters = (27 * 8 + 16) + (9 * 8 + 16 + 64 + 16) + (8 * 24 + 48 + 25 * 24 + 48 + 24 * 12 + 24)
    parameters += (12 * 20 + 40) + (20 * 5 + 5)
    macs = 112**2 * (27 * 8 + 9 * 8 + 64 + 8 * 24) + 56**2 * (25 * 24 + 24 * 12 + 12 * 20) + 20 * 5
    (row,), _ = list_models([read(SMALL)])
    assert row == {"name": "net", "params": parameters, "macs": macs, "input": 224}


@st.composite
def networks(draw: st.DrawFn) -> tuple[Layer, ...]:
    """Any network that the schema has words for."""
    width = draw(st.integers(1, 64))
    layers = [Layer(block="conv_bn", channels_in=3, channels_out=width, stride=2, arguments={"kernel": 3})]
    for _ in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            layers.append(Layer(block="identity", channels_in=width, channels_out=width))
            continue
        out, stride = draw(st.sampled_from([width, 24])), draw(st.integers(1, 2))
        arguments = {"kernel": draw(st.sampled_from([3, 5, 7])), "expansion": draw(st.integers(1, 6))}
        layers.append(
            Layer(block="mbconv", channels_in=width, channels_out=out, stride=stride, arguments=arguments)
        )
        width = out
    layers.append(Layer(block="conv_bn", channels_in=width, channels_out=9, arguments={"kernel": 1}))
    return (
        *layers,
        Layer(block="classifier", channels_in=9, channels_out=4, arguments={"norm": "none"}),
    )


@given(networks())
def test_whatever_is_written_reads_back(layers: tuple[Layer, ...]) -> None:
    spec = ModelSpec(name="net", input=IMAGENET_INPUT, classes=counted_classes(4), layers=layers)
    assert parse_net_config(write_net_config(spec), "net.config") == spec


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("bn.eps", 1e-5, "bn.eps"),
        ("first_conv.act_func", "h_swish", "first_conv.act_func"),
        ("first_conv.groups", 3, "first_conv.groups"),
        ("classifier.dropout_rate", 0.2, "classifier.dropout_rate"),
        ("classifier.in_features", 21, "20 channels reach layer 5"),
        ("blocks.0.shortcut", None, "a shortcut must join exactly the blocks"),
        ("blocks.1.shortcut", None, "a shortcut must join exactly the blocks"),
        ("blocks.2.shortcut", SMALL["blocks"][0]["shortcut"], "a shortcut must join exactly the blocks"),
        ("blocks.0.mobile_inverted_conv.name", "LSTM", "LSTM"),
        ("blocks.0.mobile_inverted_conv.expand_ratio", 2.5, "expand_ratio"),
        ("blocks.0.mobile_inverted_conv.se", True, "se"),
        ("resolution", 224, "unknown key 'resolution'"),
        ("name", "MobileNetV3", "ProxylessNASNets"),
    ],
)
def test_what_our_blocks_do_not_do_is_refused_by_key(path: str, value: object, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(changed(path, value))
    assert str(caught.value).startswith("runs/net.config: ")
    assert named in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"name": NaN}', "null", "[]"])
def test_what_is_no_such_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^net.config: "):
        parse_net_config(text, "net.config")


@pytest.mark.parametrize("model", ["quadranet12_xxs", "swin_tiny"])
def test_another_network_cannot_be_written(model: str) -> None:
    with pytest.raises(ConfigError, match=r"layer 0 \(counted from 0\) is 'patchify'"):
        write_net_config(find_model(model))


def test_a_network_of_two_layers_cannot_be_written() -> None:
    short = (LAYERS[0], LAYERS[-1])
    with pytest.raises(ConfigError, match=r"at least three layers; small has 2"):
        write_net_config(read(SMALL).model_copy(update={"layers": short, "name": "small"}))


def test_a_block_with_more_than_the_schema_says_cannot_be_written() -> None:
    spec = read(SMALL)
    odd = LAYERS[1].model_copy(update={"arguments": {"kernel": 3, "expansion": 1, "gate": True}})
    with pytest.raises(ConfigError, match=r"layer 1 .* is 'mbconv' with .*gate"):
        write_net_config(spec.model_copy(update={"layers": (LAYERS[0], odd, *LAYERS[2:])}))


# Parameters of the released weights; millions of MACs.
PUBLISHED = {
    "proxyless_cpu": (4_361_648, 439), "proxyless_gpu": (7_119_848, 465),
    "proxyless_mobile": (4_080_512, 320), "proxyless_mobile_14": (6_857_568, 581),
}  # fmt: skip
MEASURED = Path(os.environ.get("QUADNAS_MEASURED", ROOT / "../shared/data")) / "proxylessnas"


@pytest.mark.skipif(
    not MEASURED.is_dir(), reason="no published networks: set QUADNAS_MEASURED to their folder"
)
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_networks(name: str) -> None:
    path = MEASURED / f"{name}.config"
    spec = find_model(path)
    (row,), _ = list_models([spec])
    assert (row["name"], row["params"], round(row["macs"] / 1e6)) == (name, *PUBLISHED[name])
    assert json.loads(write_net_config(spec)) == json.loads(path.read_text())
