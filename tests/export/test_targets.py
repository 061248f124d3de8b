"""Exported files are run by the runtimes they are for, and compared with the network they came from."""

import copy
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quadnas.errors import ConfigError, DataError, MachineError
from quadnas.export import base, verify
from quadnas.export.base import TARGETS, export_model
from quadnas.network import Network, with_all_arguments
from quadnas.space.layer import Layer
from quadnas.space.model_spec import InputSpec, ModelSpec

SIZE = 32


def spec_of(layers: list[Layer]) -> ModelSpec:
    size = InputSpec(size=SIZE, mean=(0.5,) * 3, std=(0.2,) * 3)
    layers = [with_all_arguments(layer) for layer in layers]
    return ModelSpec(name="net", input=size, classes=("a", "b", "c"), layers=tuple(layers))


def quadra() -> list[Layer]:
    block = {"kernel": 5, "expansion": 2, "layer_scale": 0.7}
    return [
        Layer(block="patchify", channels_in=3, channels_out=8, stride=4),
        Layer(block="quadra", channels_in=8, channels_out=8, arguments=block),
        Layer(block="downsample", channels_in=8, channels_out=16, stride=2),
        Layer(block="quadra", channels_in=16, channels_out=16, arguments={**block, "kernel": 3}),
        Layer(block="classifier", channels_in=16, channels_out=3),
    ]


def mobile() -> list[Layer]:
    return [
        Layer(block="conv_bn", channels_in=3, channels_out=8, stride=2),
        Layer(block="mbconv", channels_in=8, channels_out=8, arguments={"kernel": 3, "expansion": 3}),
        Layer(
            block="mbconv", channels_in=8, channels_out=12, stride=2, arguments={"kernel": 5, "expansion": 1}
        ),
        Layer(block="classifier", channels_in=12, channels_out=3, arguments={"norm": "none"}),
    ]


NETWORKS = pytest.mark.parametrize("layers", [quadra(), mobile()], ids=["quadra", "mobile"])


def trained(spec: ModelSpec) -> Network:
    """A network whose parameters and running statistics are all far from neutral."""
    network = Network(spec.layers)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var") or ("norm" in name and name.endswith("weight")):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.is_floating_point() and "scale" not in name:
            tensor.normal_(0, 0.3, generator=generator)
    return network.eval()


def logits(network: nn.Module, images: torch.Tensor) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return np.asarray(network(images).numpy())


IMAGES = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5)) * 4 - 2


@NETWORKS
def test_onnx_runtime_gives_the_same_logits(layers: list[Layer], tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    spec = spec_of(layers)
    network = trained(spec)
    expected = logits(network, IMAGES)
    (path,) = TARGETS["onnx"].write(spec, network, {}, tmp_path / "net.onnx")
    found = runtime.InferenceSession(str(path)).run(None, {"images": IMAGES.numpy()})[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    np.testing.assert_array_equal(logits(network, IMAGES), expected)  # the network itself is left alone


def test_the_onnx_graph_holds_what_a_device_runs(tmp_path: Path) -> None:
    """Per block 3 convolutions, 1 product of maps, 2 LayerNorm, 1 GELU, 2 matrices, 3 sums, 2 biases: no scale."""
    onnx = pytest.importorskip("onnx")
    spec = spec_of(quadra())
    (path,) = TARGETS["onnx"].write(spec, trained(spec), {}, tmp_path / "net.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    ops = [node.op_type for node in model.graph.node]
    counts = {op: ops.count(op) for op in set(ops) - {"Transpose"}}
    assert counts == {
        "Conv": 2 * 3 + 2, "Mul": 2 * 1, "Add": 2 * (3 + 2), "LayerNormalization": 2 * 2 + 3, "Gelu": 2,
        "MatMul": 2 * 2, "ReduceMean": 1, "Gemm": 1,
    }  # fmt: skip
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, SIZE, SIZE]
    assert str(Path(__file__).resolve().parents[2]).encode() not in path.read_bytes()


@NETWORKS
def test_openvino_gives_the_same_logits(layers: list[Layer], tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    spec = spec_of(layers)
    network = trained(spec)
    files = TARGETS["openvino"].write(spec, network, {}, tmp_path / "net.xml")
    assert sorted(tmp_path.iterdir()) == sorted(files) == [tmp_path / "net.bin", tmp_path / "net.xml"]
    compiled = openvino.compile_model(str(files[0]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = logits(network, IMAGES)
    found = compiled([IMAGES.numpy()])[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@NETWORKS
def test_litert_gives_the_same_logits(layers: list[Layer], tmp_path: Path) -> None:
    pytest.importorskip("litert_torch")
    interpreter_of = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    spec = spec_of(layers)
    network = trained(spec)
    (path,) = TARGETS["litert"].write(spec, network, {}, tmp_path / "net.tflite")
    interpreter = interpreter_of(model_path=str(path))
    interpreter.allocate_tensors()
    (fed,), (read,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert list(fed["shape"]) == [1, SIZE, SIZE, 3]
    interpreter.set_tensor(fed["index"], IMAGES.permute(0, 2, 3, 1).contiguous().numpy())
    interpreter.invoke()
    expected = logits(network, IMAGES)
    found = interpreter.get_tensor(read["index"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("target", "package", "file"), [("onnx", "onnxruntime", "net.onnx"), ("openvino", "openvino", "net.xml")]
)
def test_a_file_that_computes_something_else_never_appears(
    target: str, package: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last bias of the deployed form is disturbed by a hundredth behind the exporter's back."""
    pytest.importorskip(package)
    spec = spec_of(mobile())
    honest = importlib.import_module("quadnas.export.onnx_graph").deployed

    def disturbed(layers: Any, network: Network) -> nn.Module:
        module: nn.Module = copy.deepcopy(honest(layers, network))
        with torch.no_grad():
            list(module.parameters())[-1].mul_(1.01)
        return module

    monkeypatch.setattr("quadnas.export.onnx_graph.deployed", disturbed)
    with pytest.raises(DataError, match=r"differs from the one exported.*nothing was written"):
        TARGETS[target].write(spec, trained(spec), {}, tmp_path / file)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [np.zeros((1, 4)), np.full((1, 3), np.nan), np.zeros((1, 3))])
def test_wrong_shapes_and_nan_are_no_match(wrong: np.ndarray[Any, Any]) -> None:
    spec = spec_of(mobile())
    with pytest.raises(DataError, match="nothing was written"):
        verify.require_equal(trained(spec), spec.input, lambda _: wrong, Path("x"))


@pytest.mark.parametrize(
    ("target", "module", "extra"),
    [
        ("onnx", "onnxruntime", "onnx"),
        ("openvino", "openvino", "openvino"),
        ("litert", "litert_torch", "litert"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    target: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(importlib.import_module("sys").modules, module, None)
    spec = spec_of(mobile())
    with pytest.raises(MachineError, match=rf"{module}.*pip install \"quadnas\[{extra}\]\""):
        TARGETS[target].write(spec, trained(spec), {}, tmp_path / f"net{TARGETS[target].suffix}")
    assert not list(tmp_path.iterdir())


def test_a_model_spec_is_exported_with_the_weights_beside_it(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    spec = spec_of(quadra())
    TARGETS["spec"].write(spec, trained(spec), {}, tmp_path / "net.yaml")
    assert export_model(tmp_path / "net.yaml", tmp_path / "net.onnx", "onnx") == [tmp_path / "net.onnx"]
    (tmp_path / "net.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"net\.safetensors is missing"):
        export_model(tmp_path / "net.yaml", tmp_path / "again.onnx", "onnx")
    with pytest.raises(ConfigError, match=r"ending in \.onnx"):
        export_model(tmp_path / "net.yaml", tmp_path / "net.yaml", "onnx")
    assert not (tmp_path / "again.onnx").exists()


def test_a_network_that_takes_large_images_alone_is_exported(tmp_path: Path) -> None:
    """It shrinks an image 128 times, so that one of 64 pixels would have nothing left."""
    shrink = [Layer(block="downsample", channels_in=8, channels_out=8, stride=2)] * 5
    spec = spec_of([quadra()[0], *shrink, Layer(block="classifier", channels_in=8, channels_out=3)])
    large = spec.model_copy(update={"input": spec.input.model_copy(update={"size": 128})})
    files = TARGETS["spec"].write(large, trained(large), {}, tmp_path / "net.yaml")
    assert [file.name for file in files] == ["net.yaml", "net.safetensors"]


def test_every_target_has_its_own_file_type() -> None:
    suffixes = {name: TARGETS[name].suffix for name in base.TARGETS}
    assert suffixes == {
        "spec": ".yaml", "net-config": ".config", "onnx": ".onnx", "openvino": ".xml", "litert": ".tflite",
    }  # fmt: skip
