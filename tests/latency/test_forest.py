"""The forest back-end: what nn-Meter's forests say, never nothing, and never more than they know."""

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quadnas.config import validated
from quadnas.errors import CoverageError, DataError
from quadnas.latency.backends.forest import ForestModel
from quadnas.latency.card import DeviceCard
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import Coverage, estimate
from quadnas.latency.nnmeter_kernels import KERNELS, features
from quadnas.latency.trees import Forest
from quadnas.nnmeter.official import published
from quadnas.testing.latency import check_batch, kernels

A76 = published()["cortexA76cpu_tflite21"]
SAMPLED = {"h": [1, 224], "cin": [3, 2160], "cout": [3, 2160], "kernels": [1], "strides": [1]}


def grown_forest(columns: int, seed: int, trees: int = 3, depth: int = 5) -> Forest:
    """Complete trees with random splits and leaves."""
    choose = np.random.default_rng(seed)
    inner, count = 2**depth - 1, 2 ** (depth + 1) - 1
    feature = np.full((trees, count), -1, np.int16)
    feature[:, :inner] = choose.integers(0, columns, (trees, inner))
    value = choose.random((trees, count)) * np.where(np.arange(count) < inner, 300.0, 5.0) + 0.01
    first = np.arange(trees)[:, None] * count
    below = np.arange(inner)
    children = np.zeros((trees, count, 2), np.int32)
    children[:, :inner, 0], children[:, :inner, 1] = first + 2 * below + 1, first + 2 * below + 2
    return Forest(first[:, 0].astype(np.int64), feature.ravel(), value.ravel(), children.reshape(-1, 2))


def walked_ms(forest: Forest, row: Sequence[float]) -> float:
    """Tree by tree, node by node."""
    found = []
    for root in forest.roots.tolist():
        node = root
        while forest.feature[node] >= 0:
            right = np.float32(row[forest.feature[node]]) > forest.value[node]
            node = int(forest.children[node, int(right)])
        found.append(float(forest.value[node]))
    return math.fsum(found) / len(found)


def forests(names: Sequence[str] = tuple(KERNELS)) -> dict[str, Forest]:
    return {name: grown_forest(KERNELS[name].columns, seed) for seed, name in enumerate(names)}


def card(names: Sequence[str], **changes: Any) -> DeviceCard:
    data = {
        **A76.facts.model_dump(),
        "families_left_out": (),
        "sampled": {name: [SAMPLED] for name in names},
        "arrays": {f"{name}.safetensors": "0" * 64 for name in names},
        **changes,
    }
    return validated(data, DeviceCard, "test card")


def device(names: Sequence[str] = tuple(KERNELS), **changes: Any) -> ForestModel:
    arrays: dict[str, NDArray[Any]] = {}
    for name, forest in forests(names).items():
        arrays.update(forest.arrays(name))
    return ForestModel(card(names, **changes), arrays, 1)


ALL = device()
FORESTS = forests()


@given(st.integers(0, 50), st.integers(1, 40))
@settings(max_examples=25)
def test_rows_walk_together_as_they_do_alone(seed: int, count: int) -> None:
    forest = grown_forest(4, seed, trees=1 + seed % 5, depth=seed % 7)
    rows = np.random.default_rng(seed).random((count, 4)) * 300
    expected = [walked_ms(forest, row.tolist()) for row in rows]
    assert forest.predict_ms(rows) == pytest.approx(expected, rel=1e-12)


def test_many_rows_are_walked_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    forest = grown_forest(4, 1, trees=7)
    rows = np.random.default_rng(0).random((10, 4)) * 300
    whole = forest.predict_ms(rows)
    monkeypatch.setattr("quadnas.latency.trees.CHUNK", 20)
    assert forest.predict_ms(rows) == pytest.approx(whole, rel=1e-12)
    assert len(forest.predict_ms(rows[:0])) == 0


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        (Kernel("conv-bn-hswish", 56, 56, (24,), 96, 5, 2), "conv-bn-relu"),
        (Kernel("dwconv-bn-relu6", 28, 28, (96,), 96, 7), "dwconv-bn-relu"),
        (Kernel("fc-relu", 1, 1, (1280,), 1000), "fc"),
        (Kernel("max-pool", 56, 56, (64,), 64, 3, 2), "maxpool"),
        (Kernel("global-pool", 7, 7, (1280,), 1280), "global-avgpool"),
        (Kernel("add-relu", 28, 28, (64, 64), 64), "addrelu"),
        (Kernel("concat", 14, 14, (64, 128, 32), 224), "concat"),
        (Kernel("se", 14, 14, (96,), 24), "se"),
        (Kernel("channel_shuffle", 14, 14, (96,), 96), "channelshuffle"),
    ],
)
def test_a_sampled_kernel_costs_what_its_forest_says(kernel: Kernel, name: str) -> None:
    price = ALL.price([kernel])[0]
    assert price.latency_ms == pytest.approx(walked_ms(FORESTS[name], features(name, kernel)), rel=1e-12)
    assert (price.coverage, price.reason, price.surrogate_error) == (Coverage.EXACT, "", 0.0)


def test_a_larger_kernel_than_any_sampled_costs_more_and_says_why() -> None:
    sampled, beyond = (Kernel("dwconv", 28, 28, (96,), 96, k) for k in (7, 13))
    price, larger = ALL.price([sampled, beyond])
    assert price.latency_ms and larger.latency_ms == pytest.approx(price.latency_ms * (13 / 7) ** 2)
    assert larger.coverage is Coverage.SURROGATE
    assert "kernel 13 as 7" in larger.reason
    assert larger.surrogate_error == ALL.card.extrapolation_error


def test_nothing_costs_less_than_a_launch() -> None:
    tiny = ALL.price([Kernel("fc", 1, 1, (2,), 2)])[0]
    assert tiny.latency_ms == ALL.card.launch_us * 1e-3
    assert "output channels 2 as 1000" in tiny.reason


def test_an_operator_without_a_forest_is_a_declared_stand_in() -> None:
    add, mul = ALL.price([Kernel(op, 28, 28, (64, 64), 64) for op in ("add", "mul")])
    assert mul.latency_ms == add.latency_ms
    assert mul.coverage is Coverage.SURROGATE
    assert mul.reason.startswith("mul priced as 1 x add: ")
    gelu, hswish = ALL.price([Kernel(op, 28, 28, (64,), 64) for op in ("gelu", "hswish")])
    assert gelu.latency_ms == hswish.latency_ms
    norm = ALL.price([Kernel("layernorm", 28, 28, (64,), 64)])[0]
    assert add.latency_ms and norm.latency_ms == pytest.approx(6.98 * add.latency_ms)
    far = ALL.price([Kernel("mul", 20, 20, (64, 64), 64)])[0]
    assert far.surrogate_error == pytest.approx(0.2 + ALL.card.extrapolation_error)
    assert "height 20 as 28" in far.reason


def test_an_operator_without_anything_has_no_price() -> None:
    price = ALL.price([Kernel("softmax", 14, 14, (64,), 64)])[0]
    assert (price.latency_ms, price.coverage) == (None, Coverage.UNCOVERED)
    assert "'softmax' has no forest" in price.reason
    found = estimate(ALL, [Kernel("conv", 14, 14, (64,), 64), Kernel("softmax", 14, 14, (64,), 64)])
    assert found.latency_ms is None
    with pytest.raises(CoverageError, match="softmax"):
        found.upper_ms(None)


@pytest.mark.parametrize("name", sorted(published()))
def test_no_published_predictor_prices_an_operator_of_ours_at_nothing(name: str) -> None:
    """Every operator of the blocks and of nn-Meter's benchmark has a forest or a stand-in that has one."""
    found = published()[name]
    model = device(tuple(sorted(set(found.files) - set(found.optional))), **found.facts.model_dump())
    ops = [
        "conv",
        "dwconv",
        "max-pool",
        "avg-pool",
        "global-pool",
        "se",
        "layernorm",
        "gelu",
        "scale",
        "relu",
    ]
    ops += ["bn", "bn-relu", "hswish", "swish", "sigmoid", "hsigmoid", "split", "channel_shuffle", "concat"]
    asked = [Kernel(op, 14, 14, (64,), 64) for op in ops]
    asked += [Kernel(op, 14, 14, (64, 64), 64) for op in ("add", "mul", "sub", "add-relu")]
    asked += [Kernel("fc", 1, 1, (64,), 10)]
    for kernel, price in zip(asked, model.price(asked), strict=True):
        assert price.latency_ms and price.latency_ms > 0, (kernel, price)


@given(st.lists(kernels(batch=1), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_prices_are_positive_finite_and_independent_of_their_neighbours(network: list[Kernel]) -> None:
    check_batch(ALL, network)
    for kernel, price in zip(network, ALL.price(network), strict=True):
        assert price.latency_ms is not None and 0 < price.latency_ms < math.inf, kernel
        assert (price.coverage is Coverage.EXACT) == (price.reason == "")
        assert price.surrogate_error >= 0


def test_another_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="batch"):
        ALL.price([Kernel("conv", 14, 14, (64,), 64, batch=2)])


BAD_ARRAYS: dict[str, tuple[str, Any]] = {
    "no roots": ("roots", np.zeros(0, np.int64)),
    "two dimensions": ("roots", np.zeros((1, 1), np.int64)),
    "not from the start": ("roots", np.array([1], np.int64)),
    "the same root twice": ("roots", np.array([0, 0], np.int64)),
    "a root behind the end": ("roots", np.array([0, 10**6], np.int64)),
    "another dtype": ("roots", np.zeros(3, np.int32)),
    "fewer nodes": ("feature", np.zeros(3, np.int16)),
    "an unknown feature": ("feature", 7),
    "a negative feature": ("feature", -2),
    "not a number": ("value", np.nan),
    "infinite": ("value", np.inf),
    "negative": ("value", -1.0),
    "nothing": ("value", 0.0),
    "an hour": ("value", 3.6e6),
    "a child in front": ("children", 0),
    "a negative child": ("children", -1),
    "a child in another tree": ("children", 70),
    "three children": ("children", np.zeros((189, 3), np.int32)),
    "wide children": ("children", np.zeros((189, 2), np.int64)),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_damaged_arrays_are_refused(case: str) -> None:
    column, change = BAD_ARRAYS[case]
    arrays = grown_forest(7, 0).arrays("conv-bn-relu")
    if isinstance(change, np.ndarray):
        arrays[f"conv-bn-relu.{column}"] = change
    else:
        position = (5, 0) if column == "children" else (40 if column == "value" else 5,)  # 40 is a leaf
        arrays[f"conv-bn-relu.{column}"][position] = change
    with pytest.raises(DataError, match="device 'cortexA76cpu_tflite21': damaged forest"):
        ForestModel(card(["conv-bn-relu"]), arrays, 1)


def test_arrays_and_card_must_name_the_same_kernels() -> None:
    arrays = grown_forest(7, 0).arrays("conv-bn-relu")
    for names, given_arrays in (
        (["conv-bn-relu", "add"], arrays),
        (["conv-bn-relu"], arrays | {"x": np.zeros(1)}),
        (["conv"], grown_forest(7, 0).arrays("conv")),
        (["conv-bn-relu"], dict(itertools.islice(arrays.items(), 3))),
        (["conv-bn-relu"], {}),
    ):
        with pytest.raises(DataError, match=r"the arrays are of|damaged forest"):
            ForestModel(card(names), given_arrays, 1)


def test_order_and_repetition_do_not_matter() -> None:
    choose = random.Random(0)
    network = [Kernel("conv", 14, 14, (8 * choose.randint(1, 4),), 64, 3) for _ in range(20)]
    prices = dict(zip(network, ALL.price(network), strict=True))
    choose.shuffle(network)
    assert ALL.price(network) == [prices[kernel] for kernel in network]
