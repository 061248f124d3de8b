"""ONNX through nn-Meter's detector: both routes agree, its failures are repaired, and bad files are refused."""

import json
import os
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quadnas.latency.devices import load_device
from quadnas.latency.fusion import fuse
from quadnas.latency.kernels import Kernel, Operator
from quadnas.latency.model import estimate
from quadnas.network import Network, deployed, kernels_of, operators_of
from quadnas.nnmeter.detector import detect, detect_in, detector_of, rule_file
from quadnas.nnmeter.onnx_graph import read_onnx
from quadnas.space.layer import Layer
from tests.golden.networks import mobilenet_v2, quadranet_xs
from tests.golden.onnx_networks import write_mobilenet_v2
from tests.golden.test_kernels import DEVICES

pytest.importorskip("onnx")

MEASURED = Path(os.environ.get("QUADNAS_MEASURED", Path(__file__).parents[2] / ".." / "shared" / "data"))
RECOVERED = {"cortexA76": "rule_tflite_cpu", "adreno640": "rule_tflite_gpu", "myriadvpu": "rule_vpu"}
CPU = (("conv", "bn"), ("conv", "relu"), ("dwconv", "bn"), ("dwconv", "relu"), ("bn", "relu"), ("add", "relu"),
       ("conv", "hswish"))  # fmt: skip


def spelled(kernels: Any) -> Counter[Kernel]:
    """nn-Meter calls every clipped activation relu."""
    return Counter(replace(kernel, op=kernel.op.replace("relu6", "relu")) for kernel in kernels)


def exported(layers: tuple[Layer, ...], path: Path, *, opset: int) -> Path:
    """The deployed form through torch's older exporter, which opens LayerNorm and GELU up into small nodes."""
    network = deployed(layers, Network(layers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 3, 224, 224),), path, dynamo=False, opset_version=opset)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """MobileNetV2 by hand with batch normalisation; the QuadraNet in opset 11 and 17, by torch."""
    folder = tmp_path_factory.mktemp("onnx")
    return {
        "mobilenet_v2": write_mobilenet_v2(folder / "mobilenet_v2.onnx"),
        "quadranet_xs": exported(quadranet_xs(), folder / "quadranet_11.onnx", opset=11),
        "quadranet_17": exported(quadranet_xs(), folder / "quadranet_17.onnx", opset=17),
    }


NETWORKS = {"mobilenet_v2": mobilenet_v2(), "quadranet_xs": quadranet_xs(), "quadranet_17": quadranet_xs()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("network", NETWORKS)
def test_both_routes_find_the_same_kernels(network: str, device: str, files: dict[str, Path]) -> None:
    ours = fuse(operators_of(NETWORKS[network], 224), load_device(device).card.fusion)
    found = detect(files[network], load_device(device).card.fusion)
    assert spelled(found.kernels) == spelled(ours)
    assert found.shape == (1, 3, 224, 224)


@pytest.mark.parametrize("device", ["cortexA76", "myriadvpu", "a100"])
@pytest.mark.parametrize("network", NETWORKS)
def test_both_routes_give_the_same_milliseconds(network: str, device: str, files: dict[str, Path]) -> None:
    model = load_device(device)
    ours = estimate(model, kernels_of(NETWORKS[network], 224, model)).latency_ms
    kernels = [
        replace(kernel, batch=model.batch) for kernel in detect(files[network], model.card.fusion).kernels
    ]
    theirs = estimate(model, kernels).latency_ms
    assert ours is not None and theirs == pytest.approx(ours, rel=1e-12)


@pytest.mark.parametrize("device", RECOVERED)
@pytest.mark.parametrize("network", ["mobilenet_v2", "quadranet_xs"])
def test_nn_meters_own_rules_find_the_golden_kernels(
    network: str, device: str, files: dict[str, Path]
) -> None:
    """The rule files of the official predictors, instead of those on our cards."""
    rules = MEASURED / "nnmeter_bench" / "fusion_rules" / f"{RECOVERED[device]}.json"
    if not rules.is_file():
        pytest.skip(f"no {rules}: the recovered rule files are measured data")
    found = detect_in(read_onnx(files[network]), json.loads(rules.read_text()))
    golden = (Path(__file__).parents[1] / "golden" / f"{network}-{device}.txt").read_text().splitlines()
    names = Counter(line.split()[0].replace("relu6", "relu") for line in golden)
    assert Counter(kernel.op for kernel in found.kernels) == names


OPS = ("conv", "bn", "relu", "add", "mul")


@settings(max_examples=60, deadline=None)
@given(
    chain=st.lists(st.tuples(st.sampled_from(OPS), st.integers(0, 30)), min_size=1, max_size=12),
    rules=st.sets(st.tuples(st.sampled_from(OPS), st.sampled_from(OPS))),
)
def test_fusion_is_nn_meters_on_any_residual_chain(
    chain: list[tuple[str, int]], rules: set[tuple[str, str]]
) -> None:
    """Sums and products read the operator before them and any earlier one, which then has two readers."""
    operators: list[Operator] = []
    for number, (op, skip) in enumerate(chain):
        two = op in ("add", "mul")
        sources = {number - 1, (skip % (number + 1)) - 1} if two else {number - 1}
        kernel = Kernel(op, 7, 7, (8,) * (2 if two else 1), 8)
        operators.append(Operator(kernel, tuple(sorted(sources))))
    nodes = {"in": _node("Placeholder", [])}
    for number, operator in enumerate(operators):
        op = {"mul": "product"}.get(operator.kernel.op, operator.kernel.op)
        nodes[f"n{number}"] = _node(op, ["in" if source < 0 else f"n{source}" for source in operator.sources])
    found = detector_of(rule_file(rules))
    found.load_graph(nodes)
    theirs = Counter(
        "-".join(found.model_graph.get_node_type(name) for name in group).replace("product", "mul")
        for group in found.bbs
        if group != ["in"]
    )
    assert Counter(kernel.op for kernel in fuse(operators, rules)) == theirs


def _node(op: str, inbounds: list[str]) -> dict[str, Any]:
    shape = [[1, 7, 7, 8]]
    attributes = {"type": op, "attr": {}, "input_shape": shape, "output_shape": shape}
    return {"attr": attributes, "inbounds": inbounds, "outbounds": []}
