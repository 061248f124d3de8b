"""The runtimes for real: chains and networks compute what PyTorch computes, and can be timed."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from quadnas.calibrate.own.measuring import timed_ms
from quadnas.calibrate.own.modules import OperatorModule, network_module
from quadnas.calibrate.own.onnx_graphs import OnnxModels
from quadnas.calibrate.own.runtime import RUNTIMES, Graph
from quadnas.calibrate.own.sampling import FAMILIES, prior_chain
from quadnas.errors import ConfigError, MachineError
from quadnas.export.onnx_graph import onnx_bytes
from quadnas.latency.kernels import Kernel, Operator
from quadnas.network import operators_of
from tests.cli.command import TINY_SPACE, quadnas, write
from tests.toy import toy_space

SMALL = 2_000_000


def small_chain(family: str) -> Graph:
    """A chain that takes microseconds."""
    draw = random.Random(3)
    while True:
        operators = prior_chain(family, draw)
        if sum(o.kernel.h**2 * o.kernel.cin * o.kernel.cout * o.kernel.kernel**2 for o in operators) < SMALL:
            return Graph(family, operators)


def small_network() -> Graph:
    layers = toy_space(depths=(1, 1)).layers((0, 3), 10)
    return Graph("toy", tuple(operators_of(layers, 48)), layers)


def output_shape(model: bytes, shape: tuple[int, ...]) -> tuple[int, ...]:
    session = pytest.importorskip("onnxruntime").InferenceSession(model, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"images": np.zeros(shape, np.float32)})
    return tuple(result.shape)


@pytest.mark.parametrize("name", list(RUNTIMES))
@pytest.mark.parametrize("family", FAMILIES)
def test_every_chain_runs(name: str, family: str) -> None:
    if name != "torch":
        pytest.importorskip("onnx")
        pytest.importorskip(name)
    wall_ms, _ = timed_ms(RUNTIMES[name](1).load(small_chain(family)))
    assert wall_ms > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_chains_have_the_shapes_that_their_kernels_say(family: str) -> None:
    """In torch and in ONNX alike; a chain ends in LayerNorm, whose output is that of its kernel."""
    pytest.importorskip("onnx")
    graph = small_chain(family)
    last = graph.operators[-1].kernel
    torch_shape = OperatorModule(graph.operators)(torch.zeros(graph.shape)).shape
    assert tuple(torch_shape) == (1, last.cout, last.h, last.w)
    assert output_shape(OnnxModels("onnx").of(graph), graph.shape) == (1, last.h, last.w, last.cout)


def test_a_network_made_of_exported_layers_computes_what_the_network_does() -> None:
    """Outside reference: the module of the whole network in PyTorch, layer by layer the same random weights."""
    pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    graph = small_network()
    images = np.random.default_rng(0).random(graph.shape, np.float32)
    session = ort.InferenceSession(OnnxModels("onnx").of(graph), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images})
    x = torch.from_numpy(images)
    with torch.no_grad():
        for layer in graph.layers:
            x = network_module([layer])(x)
    np.testing.assert_allclose(found, x.numpy(), rtol=1e-4, atol=1e-4)


def test_a_network_made_of_exported_layers_is_the_export_of_the_network() -> None:
    """The same operators as many times: nothing is added where layers meet but pairs of transpositions."""
    onnx = pytest.importorskip("onnx")
    graph = small_network()

    def counts(model: bytes) -> dict[str, int]:
        ops = [node.op_type for node in onnx.load_from_string(model).graph.node]
        return {op: ops.count(op) for op in set(ops) - {"Transpose"}}

    whole = onnx_bytes(network_module(graph.layers), graph.shape)
    assert counts(OnnxModels("onnx").of(graph)) == counts(whole)


def test_no_parameter_is_zero_or_one() -> None:
    """Such a bias or scale would be dropped by a runtime, and its time would be missing."""
    for parameter in network_module(small_network().layers).parameters():
        assert not bool(((parameter == 0) | (parameter == 1)).any())


def test_an_unknown_operator_is_refused() -> None:
    graph = Graph("odd", (Operator(Kernel("fft", 7, 7, (8,), 8), (-1,)),))
    with pytest.raises(ConfigError, match="operator 'fft'"):
        RUNTIMES["torch"](1).load(graph)
    pytest.importorskip("onnx")
    with pytest.raises(ConfigError, match="operator 'fft'"):
        OnnxModels("onnx").of(graph)


@pytest.mark.parametrize(("name", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MachineError, match=rf'pip install "quadnas\[{extra}\]"'):
        RUNTIMES[name](1)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUADNAS_HOME", str(tmp_path / "home"))
    return write(tmp_path / "tiny.yaml", TINY_SPACE)


def test_a_real_calibration_of_torch_in_seconds(tiny: Path) -> None:
    options = ["--device", "here", "--runtime", "torch", "--minutes", "0.01", "--input-size", "64"]
    answer = quadnas("calibrate", *options, "--space", tiny, "--json").json
    assert answer["rerun"]["repeated"] > 0
    assert answer["held_out"]["models"] > 0
    assert "home/latency_predictors/here" in answer["folder"]
    shown = quadnas("spaces", "show", tiny, "--device", "here", "--input-size", "64", "--json").json
    assert shown
    again = quadnas("calibrate", *options, "--space", tiny, "--json").json
    assert again == answer


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["--runtime", "tensorrt"], 2, ["'tensorrt'", "onnxruntime, openvino, torch"]),
        (["--device", "../there"], 2, ["device", "'../there'"]),
        (["--device", ""], 2, ["device"]),
        (["--minutes", "0"], 2, ["minutes", "greater than 0"]),
        (["--minutes", "nan"], 2, ["minutes"]),
        (["--threads", "0"], 2, ["threads"]),
        (["--threads", "200"], 2, ["--threads is at most", "200"]),
        (["--space", "nowhere"], 2, ["search space", "'nowhere'"]),
        (["--input-size", "8"], 2, ["map"]),
        (["--out", "/proc/here"], 5, ["/proc/here"]),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(
    tiny: Path, arguments: list[str], code: int, parts: list[str]
) -> None:
    given = {"--device": "here", "--runtime": "torch", "--minutes": "0.01"} | dict(
        zip(arguments[::2], arguments[1::2], strict=True)
    )
    quadnas("calibrate", *(word for pair in given.items() for word in pair)).refused(code, *parts)
    assert not (tiny.parent / "home").exists()
