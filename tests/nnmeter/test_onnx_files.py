"""Files that are no network: refused with the right exit code; nothing is executed, opened or written."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quadnas.errors import ConfigError, DataError
from quadnas.nnmeter.detector import detect
from quadnas.nnmeter.onnx_graph import MAX_NODES
from tests.cli.command import quadnas
from tests.golden.onnx_networks import Graph, write_mobilenet_v2

onnx = pytest.importorskip("onnx")


def latency(path: Path | str) -> tuple[str, ...]:
    return "latency", str(path), "--device", "cortexA76"


def small(path: Path) -> Path:
    g = Graph(1, 3, 8, 8)
    return g.write(path, g.add("Relu", g.conv("x", 3, 8, 3)))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    quadnas(*latency(tmp_path / "gone.onnx")).refused(2, "gone.onnx", "No such file")
    quadnas(*latency(tmp_path / "folder.onnx")).refused(2, "folder.onnx", "directory")


@pytest.mark.parametrize(
    "data",
    [b"", b"not a network", b"\x08\x0a", b"\xff" * 100, b"\x80\x04K\x01.", bytes(1000)],
    ids=["empty", "text", "only a version", "ones", "pickle", "zeros"],
)
def test_what_is_no_onnx_file(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(data)
    quadnas(*latency(tmp_path / "x.onnx")).refused(4, "x.onnx", "not an ONNX file")


def test_a_truncated_or_damaged_file_never_gives_a_number_for_another_network(tmp_path: Path) -> None:
    """Cut anywhere: refused, or (where only weights are lost) the same kernels."""
    path = small(tmp_path / "x.onnx")
    whole, expected = path.read_bytes(), detect(path, ()).kernels
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with contextlib.suppress(DataError, ConfigError):
            assert detect(path, ()).kernels == expected


def test_deeply_nested_and_endless_messages(tmp_path: Path) -> None:
    """A message in a message 100,000 levels deep, and a length that promises 2 GiB."""
    nested = b""
    for _ in range(2000):
        nested = b"\x0a" + _varint(len(nested)) + nested
    (tmp_path / "deep.onnx").write_bytes(b"\x3a" + _varint(len(nested)) + nested)
    (tmp_path / "long.onnx").write_bytes(b"\x3a" + _varint(2**31 - 10) + b"\x0a")
    for name in ("deep", "long"):
        start = time.monotonic()
        quadnas(*latency(tmp_path / f"{name}.onnx")).refused(4, f"{name}.onnx", "not an ONNX file")
        assert time.monotonic() - start < 20


def _varint(value: int) -> bytes:
    data = b""
    while value > 127:
        data, value = data + bytes([value % 128 + 128]), value // 128
    return data + bytes([value])


def test_sizes_that_no_memory_holds_are_never_allocated(tmp_path: Path) -> None:
    """A constant that would fill 4 EB, and a weight that claims 4 TB without holding a byte."""
    g = Graph(1, 3, 8, 8)
    huge = g.add("ConstantOfShape", g.constant(value=[2**60]))
    g.weights.append(onnx.TensorProto(name="w", dims=[2**40, 3, 1, 1], data_type=onnx.TensorProto.FLOAT))
    x = g.add("Conv", "x", "w", kernel_shape=[1, 1])
    path = g.write(tmp_path / "x.onnx", g.add("Add", x, g.add("ReduceMean", huge)))
    start = time.monotonic()
    answer = quadnas(*latency(path), "--json")
    assert time.monotonic() - start < 20
    assert answer.code in (2, 4) or answer.json["latency_ms"] > 1e6


def test_functions_are_refused_before_they_multiply(tmp_path: Path) -> None:
    """Each of 60 functions calls the next one twice: 2**60 operators if they were put in place."""
    helper = onnx.helper
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    functions = []
    for level in range(60):
        inner = ("Relu", "") if level == 59 else (f"f{level + 1}", "f")
        nodes = [
            helper.make_node(inner[0], ["a"], ["b"], domain=inner[1]),
            helper.make_node(inner[0], ["b"], ["c"], domain=inner[1]),
        ]
        functions.append(helper.make_function("f", f"f{level}", ["a"], ["c"], nodes, opsets))
    g = Graph(1, 3, 8, 8)
    model = g.model(g.add("f0", "x", domain="f"))
    model.functions.extend(functions)
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    quadnas(*latency(tmp_path / "x.onnx")).refused(4, "functions", "onnx.inliner")


def test_more_operators_than_a_network_has(tmp_path: Path) -> None:
    g = Graph(1, 3, 8, 8)
    x = "x"
    for _ in range(MAX_NODES + 1):
        x = g.add("Relu", x)
    quadnas(*latency(g.write(tmp_path / "x.onnx", x))).refused(4, f"at most {MAX_NODES}")


def test_weights_elsewhere_are_priced_by_their_shape_and_never_opened(tmp_path: Path) -> None:
    """External data at a path outside the folder, which does not even exist."""
    path = small(tmp_path / "x.onnx")
    expected = detect(path, ()).kernels
    model = onnx.load(path)
    (weight,) = model.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "../../../../etc/passwd"), ("length", "99999999999")):
        weight.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
    path.write_bytes(model.SerializeToString())
    assert detect(path, ()).kernels == expected


@pytest.mark.parametrize(
    ("axis", "message"), [(1, "axis 1"), (2, "--input-size"), (3, "--input-size")], ids=["c", "h", "w"]
)
def test_open_axes_are_named(axis: int, message: str, tmp_path: Path) -> None:
    model = onnx.load(small(tmp_path / "x.onnx"))
    dim = model.graph.input[0].type.tensor_type.shape.dim[axis]
    dim.Clear()
    dim.dim_param = "anything"
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    quadnas(*latency(tmp_path / "x.onnx")).refused(
        2, f"axis {axis} of the input 'x' is open (anything)", message
    )


def test_an_input_without_a_shape_and_shapes_that_only_appear_at_run_time(tmp_path: Path) -> None:
    model = onnx.load(small(tmp_path / "x.onnx"))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    quadnas(*latency(tmp_path / "x.onnx")).refused(2, "has no shape")
    g = Graph(1, 3, 8, 8)
    g.write(tmp_path / "y.onnx", g.add("Relu", g.add("NonZero", "x")))
    quadnas(*latency(tmp_path / "y.onnx")).refused(2, "NonZero", "not known before the model runs")


def test_a_size_or_batch_that_is_not_the_exported_one(tmp_path: Path) -> None:
    path = small(tmp_path / "x.onnx")
    quadnas(*latency(path), "--input-size", "16").refused(2, "exported for 8 pixels", "--input-size 16")
    g = Graph(7, 3, 8, 8)
    g.write(tmp_path / "y.onnx", g.conv("x", 3, 8, 3))
    quadnas(*latency(tmp_path / "y.onnx")).refused(2, "exported for batch 7", "batch 1")


def test_a_graph_whose_nodes_are_out_of_order_or_doubled(tmp_path: Path) -> None:
    model = onnx.load(small(tmp_path / "x.onnx"))
    first, second = (onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node)
    for nodes, message in (
        ((second, first), "which nothing before it gives"),
        ((first, first), "given twice"),
    ):
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
        quadnas(*latency(tmp_path / "x.onnx")).refused(4, "is damaged", message)


def test_an_uncovered_operator_gives_no_total(tmp_path: Path) -> None:
    g = Graph(1, 8, 8, 8)
    path = g.write(tmp_path / "x.onnx", g.conv("x", 8, 8, 3, groups=2))
    answer = quadnas(*latency(path), "--json")
    assert answer.code == 4
    assert answer.json["latency_ms"] is None
    (kernel,) = answer.json["kernels"]
    assert (kernel["op"], kernel["coverage"]) == ("groupedconv", "uncovered")


def test_nn_meter_leaves_no_trace_in_the_home_folder(tmp_path: Path) -> None:
    """Imported plainly it writes ~/.nn_meter, and prints to stdout what is not JSON."""
    path = write_mobilenet_v2(tmp_path / "m.onnx")
    home = tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-m", "quadnas.cli"]
    environment = {**os.environ, "HOME": str(home), "USERPROFILE": str(home)}
    done = subprocess.run(
        [*command, *latency(path), "--json"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith('{"latency_ms": ') and done.stdout.count("\n") == 1
    assert not list(home.rglob("*nn*"))
