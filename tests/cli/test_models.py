"""Models by name: the list, and a name wherever a model spec is taken."""

import json
import time
from pathlib import Path

import pytest
import torch

from quadnas.network import Network, with_all_arguments
from quadnas.run.folder import RunFolder
from quadnas.space.model_family import find_model
from quadnas.space.model_spec import ModelSpec, load_model_spec
from quadnas.training.weights import load_weights
from tests.cli.command import python, quadnas, write
from tests.cli.test_surface import WRAPPER

MINE = """\
format: quadnas-models/1
description: small enough to train in a test
stem: {block: patchify, stride: 4}
downsample: {block: downsample, stride: 2}
blocks: [{block: quadra, kernel: 3, expansion: 2}]
head: {block: classifier}
models:
  small: {channels: [8, 16], depths: [1, 1]}
"""
MOBILE = """\
format: quadnas-models/1
description: inverted residuals, as a net.config can say them
stem: {block: conv_bn, kernel: 3, stride: 2, channels: 8}
blocks: [{block: mbconv, kernel: 5, expansion: [1, 3], stride: [1, 2]}]
head: [{block: conv_bn, kernel: 1, channels: 24}, {block: classifier, norm: none}]
models:
  small_mobile: {channels: [8, 12], depths: [1, 2]}
"""


@pytest.fixture
def home(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own folder, with two families in it."""
    (place / "home" / "models").mkdir(parents=True)
    monkeypatch.setenv("QUADNAS_HOME", str(place / "home"))
    write(place / "home/models/mine.yaml", MINE)
    write(place / "home/models/mobile.yaml", MOBILE)
    return place / "home"


def test_the_list_has_exactly_these_keys_and_takes_seconds() -> None:
    start = time.process_time()
    rows = quadnas("models", "--json").json
    assert time.process_time() - start < 20
    assert all(list(row) == ["name", "params", "macs", "input"] for row in rows)
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names))
    assert {
        "quadranet36_t", "quadranet36_t_conv1", "quadranet25_b", "swin_tiny", "convnext_tiny", "hornet_tiny",
        "quadranet12_xxs", "mobilenet_v2", "quadra_convnext_tiny",
    } <= set(names)  # fmt: skip
    lines = quadnas("models").out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", *names]


def test_one_model_by_name_and_as_a_file(place: Path) -> None:
    expected = [{"name": "quadranet36_t", "params": 23_598_824, "macs": 4_129_570_304, "input": 224}]
    assert quadnas("models", "quadranet36_t", "--json").json == expected
    assert "23,598,824" in quadnas("models", "quadranet36_t").out
    assert quadnas("export", "quadranet36_t", "-o", "mine.yaml").out == "mine.yaml\n"
    assert quadnas("models", "./mine.yaml", "--json").json == expected


def test_a_wrong_name_is_refused_with_near_ones_before_torch() -> None:
    answer = python("-c", WRAPPER, "models", "quadranet36")
    assert (answer.code, answer.out) == (2, "False\n")
    assert "no model 'quadranet36'; did you mean 'quadranet36_t' or" in answer.err
    for command in (["models"], ["latency", "--device", "cortexA76"], ["train"]):
        quadnas(command[0], "convnext_tinny", *command[1:]).refused(2, "did you mean 'convnext_tiny'")


def test_the_latency_of_a_name_is_that_of_its_spec(place: Path) -> None:
    quadnas("export", "quadranet12_xxs", "-o", "model.yaml")
    by_name, by_file = (
        quadnas("latency", model, "--device", "cortexA76", "--json").json
        for model in ("quadranet12_xxs", "model.yaml")
    )
    assert by_name["latency_ms"] == by_file["latency_ms"] > 0


def test_a_name_is_exported_as_a_spec_with_every_argument(place: Path, home: Path) -> None:
    quadnas("export", "small").out.splitlines()
    spec = load_model_spec(Path("model.yaml"))
    assert spec.is_design
    assert spec.layers == tuple(with_all_arguments(layer) for layer in find_model("small").layers)
    assert spec.layers[1].arguments["layer_scale"] == 1e-6
    assert not Path("model.safetensors").exists()
    quadnas("export", "small", "--to", "onnx").refused(2, "small has no weights", "quadnas train small")
    quadnas("export", "smal").refused(2, "smal is not a run folder", "did you mean 'small'")
    Path("small").mkdir()  # what lies here wins
    quadnas("export", "small").refused(2, "small is not a run folder")


def trained(model: str) -> ModelSpec:
    """What a short training of a name leaves in ``run``."""
    answer = quadnas("train", model, "--data", "digits", "--epochs", "1", "--out", "run", "--json")
    assert answer.json["run"] == "run"
    return load_model_spec(Path("run/model.yaml"))


def test_a_name_is_trained_on_any_data(home: Path) -> None:
    """The head takes the data's classes, the input their normalisation; the rest is the design's."""
    design, spec = find_model("small"), trained("small")
    assert spec.classes == tuple("0123456789")
    assert spec.layers[-1].channels_out == 10
    assert [layer.block for layer in spec.layers] == [layer.block for layer in design.layers]
    assert spec.layers[1].arguments["layer_scale"] == 1e-6  # written out
    assert spec.input.mean != design.input.mean
    assert spec.input.size == 224
    assert ModelSpec.model_validate_json(json.dumps(RunFolder.open(Path("run")).settings["model"])) == spec
    by_file, by_name = (
        quadnas("evaluate", model, "run/model.safetensors", "--json").json
        for model in ("run/model.yaml", "small")
    )
    assert by_file == by_name
    assert by_file["accuracy"] == json.loads(Path("run/result.json").read_text())["accuracy"]


def test_a_spec_with_named_classes_keeps_them(home: Path) -> None:
    trained("small")
    text = Path("run/model.yaml").read_text()
    named = write(Path("named.yaml"), text.replace("classes: ['0',", "classes: [zero,"))
    assert load_model_spec(named).classes[0] == "zero"
    quadnas("train", named, "--data", "digits").refused(2, "tells 10 classes apart (zero, 1, 2 ...)")


def test_a_net_config_goes_in_and_out(home: Path) -> None:
    """With trained weights: the same network, to the bit."""
    spec = trained("small_mobile")
    files = quadnas("export", "run/model.yaml", "--to", "net-config", "-o", "net.config").out.splitlines()
    assert files == ["net.config", "net.safetensors"]
    read = find_model("net.config")
    assert read.layers == spec.layers
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = []
    for layers, weights in ((read.layers, "net.safetensors"), (spec.layers, "run/model.safetensors")):
        network = Network(layers).eval()
        load_weights(network, Path(weights))
        with torch.no_grad():
            logits.append(network(images))
    assert torch.equal(*logits)
    assert (
        quadnas("evaluate", "net.config", "net.safetensors", "--json").json
        == quadnas("evaluate", "run/model.yaml", "run/model.safetensors", "--json").json
    )


def test_a_design_as_a_net_config(place: Path) -> None:
    assert quadnas("export", "mobilenet_v2", "--to", "net-config").out == "model.config\n"
    (row,) = quadnas("models", "model.config", "--json").json
    assert (row["params"], row["macs"]) == (3_504_872, 300_774_272)
    assert quadnas("export", "model.config", "-o", "again.yaml").out == "again.yaml\n"
    quadnas("export", "quadranet12_xxs", "--to", "net-config", "-o", "q.config").refused(2, "is 'patchify'")
    assert not Path("q.config").exists()


def test_a_measurement_of_a_name_is_recorded(home: Path) -> None:
    answer = quadnas("latency", "small", "--device", "cortexA76", "--measured", "5ms", "--json")
    assert answer.json["measured"]["latency_ms"] == 5
    assert '"small"' in (home / "measurements/cortexA76.jsonl").read_text()
