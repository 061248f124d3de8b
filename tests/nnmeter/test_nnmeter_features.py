"""Names and features against nn-Meter's own package, run in a process of its own since it writes to the home."""

import json
import os
import random
import subprocess
import sys
from typing import Any

import pytest

from quadnas.latency.kernels import Kernel
from quadnas.latency.nnmeter_kernels import KERNELS, features, kernel_name, nearest

REFERENCE = """
import json, sys, warnings
warnings.simplefilter("ignore")
from nn_meter.predictor.prediction.extract_feature import get_predict_features
from nn_meter.predictor.prediction.predict_by_kernel import merge_conv_kernels
from nn_meter.predictor.prediction.utils import get_kernel_name
answers = []
for item in json.load(sys.stdin):
    found = get_predict_features([item])
    answers.append([get_kernel_name(merge_conv_kernels(item["op"])), found[0][item["op"]] if found else None])
print(json.dumps(answers))
"""
OPS = {
    "conv-bn-relu": [
        "conv",
        "conv-bn",
        "conv-relu",
        "conv-bn-relu",
        "conv-hswish",
        "conv-add",
        "conv-bn-relu-add",
    ],
    "dwconv-bn-relu": ["dwconv", "dwconv-bn", "dwconv-bn-relu", "dwconv-relu", "dwconv-add"],
    "fc": ["fc", "fc-relu"],
    "maxpool": ["maxpool"],
    "avgpool": ["avgpool"],
    "global-avgpool": ["global-pool", "gap", "global-avgpool"],
    "concat": ["concat"],
    "add": ["add"],
    "addrelu": ["add-relu"],
    "bnrelu": ["bn-relu"],
    "bn": ["bn"],
    "relu": ["relu"],
    "hswish": ["hswish"],
    "se": ["se", "se-relu"],
    "split": ["split"],
    "channelshuffle": ["channelshuffle"],
}


def drawn(choose: random.Random, op: str) -> Kernel:
    side, channels, out = choose.randint(1, 300), choose.randint(1, 3000), choose.randint(1, 3000)
    if op.startswith("fc"):
        return Kernel(op, 1, 1, (channels,), out)
    if op in ("add", "add-relu"):
        return Kernel(op, side, side, (channels, channels), channels)
    if op == "concat":
        inputs = tuple(choose.randint(1, 900) for _ in range(choose.randint(2, 7)))
        return Kernel(op, side, side, inputs, sum(inputs))
    if op.startswith("conv"):
        taps, stride = choose.choice((1, 2, 3, 5, 7, 9, 11, 13)), choose.choice((1, 2, 3, 4))
        return Kernel(op, side, side, (channels,), out, taps, stride)
    if op.startswith(("dwconv", "maxpool", "avgpool")):
        return Kernel(
            op, side, side, (channels,), channels, choose.choice((1, 2, 3, 5, 7)), choose.choice((1, 2))
        )
    cout = channels // 4 if op.startswith("se") else channels // 2 if op == "split" else channels
    return Kernel(op, side, side, (channels,), max(cout, 1))


def as_nn_meter(kernel: Kernel) -> dict[str, Any]:
    """The kernel as nn-Meter's detector describes it: tensors are NHWC."""
    flat = kernel.op.startswith("fc")
    return {
        "op": kernel.op,
        "cin": kernel.inputs[0],
        "cout": kernel.cout,
        "ks": [kernel.kernel, kernel.kernel],
        "strides": [kernel.stride, kernel.stride],
        "inputh": kernel.h,
        "inputw": kernel.w,
        "input_tensors": [[1, c] if flat else [1, kernel.h, kernel.w, c] for c in kernel.inputs],
    }


@pytest.fixture(scope="module")
def drawn_and_answered(
    tmp_path_factory: pytest.TempPathFactory,
) -> list[tuple[Kernel, str, list[float] | None]]:
    choose = random.Random(0)
    kernels = [drawn(choose, op) for ops in OPS.values() for op in ops for _ in range(60)]
    done = subprocess.run(
        [sys.executable, "-c", REFERENCE],
        input=json.dumps([as_nn_meter(kernel) for kernel in kernels]),
        env={**os.environ, "HOME": str(tmp_path_factory.mktemp("home"))},
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(done.stdout)
    return [(kernel, *answer) for kernel, answer in zip(kernels, answers, strict=True)]


@pytest.mark.parametrize("name", KERNELS)
def test_names_and_features_are_nn_meter_s(
    name: str, drawn_and_answered: list[tuple[Kernel, str, list[float] | None]]
) -> None:
    mine = [row for row in drawn_and_answered if kernel_name(row[0].op) == name]
    assert len(mine) == 60 * len(OPS[name])
    for kernel, theirs, expected in mine:
        assert theirs == name
        assert list(features(name, kernel)) == expected
        assert len(features(name, kernel)) == KERNELS[name].columns


@pytest.mark.parametrize(
    ("op", "name"),
    [
        ("max-pool", "maxpool"),
        ("avg-pool", "avgpool"),
        ("channel_shuffle", "channelshuffle"),
        ("conv-bn-relu6", "conv-bn-relu"),
        ("SE", "se"),
        ("bn-relu6", "bnrelu"),
        ("add-relu6", "addrelu"),
        # nn-Meter has no name for these pairs and prices them at nothing: here the first operator counts.
        ("concat-relu", "concat"),
        ("add-add", "add"),
        ("maxpool-relu", "maxpool"),
        ("hswish-add", "hswish"),
    ],
)
def test_other_spellings(op: str, name: str) -> None:
    assert kernel_name(op) == name


@pytest.mark.parametrize("op", ["mul", "layernorm", "gelu", "sub", "softmax"])
def test_what_nn_meter_does_not_know_keeps_its_own_name(op: str) -> None:
    assert kernel_name(op) not in KERNELS


def test_a_sampled_shape_stands_for_itself() -> None:
    for kernel in (Kernel("conv", 56, 56, (64,), 128, 3, 2), Kernel("dwconv", 14, 14, (576,), 576, 7)):
        assert nearest(kernel_name(kernel.op), kernel) == (kernel, 1.0, "")


@pytest.mark.parametrize(
    ("kernel", "stand_in", "factor"),
    [
        # 20 lies between 14 and 27
        (Kernel("conv", 20, 20, (64,), 64, 3), Kernel("conv", 27, 27, (64,), 64, 3), (20 / 27) ** 2),
        (Kernel("conv", 448, 448, (64,), 64), Kernel("conv", 224, 224, (64,), 64), 4.0),
        (Kernel("conv", 14, 7, (64,), 64), Kernel("conv", 14, 14, (64,), 64), 0.5),
        (Kernel("conv", 56, 56, (3,), 64, 4, 4), Kernel("conv", 56, 56, (3,), 64, 5, 4), 16 / 25),
        (Kernel("conv", 7, 7, (4320,), 4096), Kernel("conv", 7, 7, (2160,), 2048), 4.0),
        (Kernel("conv", 7, 7, (2,), 3), Kernel("conv", 7, 7, (3,), 4), 0.5),
        (Kernel("dwconv", 14, 14, (96,), 96, 13), Kernel("dwconv", 14, 14, (96,), 96, 7), (13 / 7) ** 2),
        (Kernel("dwconv", 14, 14, (2304,), 2304, 3), Kernel("dwconv", 14, 14, (1152,), 1152, 3), 2.0),
        (Kernel("fc", 1, 1, (64,), 10), Kernel("fc", 1, 1, (512,), 1000), 640 / 512e3),
        (Kernel("add", 14, 14, (4320, 4320), 4320), Kernel("add", 14, 14, (2160, 2160), 2160), 2.0),
        (Kernel("global-pool", 14, 14, (64,), 64), Kernel("global-pool", 7, 7, (64,), 64), 4.0),
        (Kernel("maxpool", 7, 7, (64,), 64, 2, 2), Kernel("maxpool", 14, 14, (64,), 64, 2, 2), 0.25),
    ],
)
def test_other_shapes_are_priced_as_a_sampled_one_in_proportion(
    kernel: Kernel, stand_in: Kernel, factor: float
) -> None:
    found, share, reason = nearest(kernel_name(kernel.op), kernel)
    assert found == stand_in
    assert share == pytest.approx(factor)
    assert "never sampled there" in reason
