"""Every shipped device keeps the laws of a latency model."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadnas.latency.devices import available_devices, load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import Coverage, LatencyModel
from quadnas.testing.latency import DIMENSIONS, check_batch, check_growth, check_price, kernels

DEVICES = (
    "a100",
    "adreno630",
    "adreno640",
    "cortexA76",
    "myriadvpu",
    "rtx3090",
    "tpuv2",
    "tpuv3",
    "vck190",
    "zcu102",
)
NOT_ON_A_DPU = {"conv-swish", "swish", "split", "channel_shuffle", "channelshuffle", "layernorm", "gelu"}
SPELLINGS = (
    "conv",
    "conv-bn",
    "conv-bn-relu",
    "conv-bn-relu6",
    "conv-bn-hswish",
    "conv-relu",
    "conv-swish",
    "conv-hswish",
    "conv-add",
    "dwconv",
    "dwconv-bn",
    "dwconv-bn-relu",
    "dwconv-bn-relu6",
    "dwconv-add-add",
    "fc",
    "fc-relu",
    "se",
    "se-relu",
    "SE",
    "hswish",
    "swish",
    "relu",
    "relu6",
    "bn",
    "bn-relu",
    "bnrelu",
    "add",
    "add-relu",
    "addrelu",
    "mul",
    "concat",
    "split",
    "channel_shuffle",
    "channelshuffle",
    "max-pool",
    "maxpool",
    "avg-pool",
    "avgpool",
    "global-pool",
    "gap",
    "global-avgpool",
    "layernorm",
    "gelu",
    "scale",
)
model = cache(load_device)


def drawn(device: str) -> st.SearchStrategy[Kernel]:
    return kernels(model(device).batch)


def test_the_issue_s_devices_are_shipped() -> None:
    assert set(DEVICES) <= set(available_devices())


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_price_is_positive_and_within_the_peak(device: str, data: st.DataObject) -> None:
    check_price(model(device), data.draw(drawn(device)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dimension", DIMENSIONS)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_nothing_gets_cheaper_by_growing(device: str, dimension: str, data: st.DataObject) -> None:
    check_growth(model(device), data.draw(drawn(device)), dimension, data.draw(st.integers(1, 64)))


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_prices_do_not_depend_on_company(device: str, data: st.DataObject) -> None:
    check_batch(model(device), data.draw(st.lists(drawn(device), max_size=12)))


@pytest.mark.parametrize("device", DEVICES)
def test_every_spelling_of_nn_meter_has_a_price(device: str) -> None:
    """The names that nn-Meter's builder knows for convolutional networks, and a few of its users' spellings."""
    loaded = model(device)
    missing = NOT_ON_A_DPU if loaded.card.precision == "int8" else set()
    for name in SPELLINGS:
        kernel = Kernel(
            name, 14, 14, (64, 64) if "add" in name or name == "mul" else (64,), 64, batch=loaded.batch
        )
        price = loaded.price([kernel])[0]
        if name in missing:
            assert price.coverage is Coverage.UNCOVERED, (name, price)
        else:
            assert price.latency_ms is not None and price.latency_ms > 0, (name, price)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("op", ["lstm", "conv-lstm", "", "conv-", "softmax"])
def test_an_unknown_operator_is_never_free(device: str, op: str) -> None:
    loaded: LatencyModel = model(device)
    price = loaded.price([Kernel(op, 14, 14, (64,), 64, batch=loaded.batch)])[0]
    assert price.coverage is Coverage.UNCOVERED and price.latency_ms is None
    assert loaded.card.device in price.reason
