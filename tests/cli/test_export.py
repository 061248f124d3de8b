"""What a search found, exported for runtimes; and an exported file priced as the search promised."""

from pathlib import Path

import numpy as np
import pytest
import torch

from quadnas.network import Network
from quadnas.space.model_spec import load_model_spec
from quadnas.training.weights import load_weights
from tests.cli.command import quadnas
from tests.cli.conftest import Found

onnxruntime = pytest.importorskip("onnxruntime")


def test_a_run_is_exported_with_both_weights_and_priced_as_promised(place: Path, found: Found) -> None:
    answer = quadnas("export", found.run, "--to", "onnx")
    assert answer.out.splitlines() == ["model.onnx", "model-retrained.onnx"]
    spec = load_model_spec(found.run / "model.yaml")
    size = spec.input.size
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(3))
    for file, weights in (("model.onnx", "model"), ("model-retrained.onnx", "retrained")):
        network = Network(spec.layers).eval()
        load_weights(network, found.run / f"{weights}.safetensors")
        with torch.no_grad():
            expected = network(images).numpy()
        logits = onnxruntime.InferenceSession(place / file).run(None, {"images": images.numpy()})[0]
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    for device in ("cortexA76", "myriadvpu"):
        ours = quadnas("latency", found.run / "model.yaml", "--device", device, "--json").json
        theirs = quadnas("latency", "model.onnx", "--device", device, "--json").json
        assert theirs["latency_ms"] == pytest.approx(ours["latency_ms"], rel=1e-12)
        assert any("layout" in note for note in theirs["notes"])


def test_an_export_for_a_runtime_needs_its_own_file_type(place: Path, found: Found) -> None:
    for target, suffix in (("onnx", ".onnx"), ("openvino", ".xml"), ("litert", ".tflite")):
        quadnas("export", found.run, "--to", target, "-o", "model.bin").refused(2, f"ending in {suffix}")
    assert [path.name for path in place.iterdir()] == ["tiny.yaml"]
