"""What ``quadnas latency`` answers for an ONNX file."""

from dataclasses import replace
from pathlib import Path

from quadnas.errors import ConfigError
from quadnas.latency.measurements import Measured, load_corrected
from quadnas.nnmeter.detector import detect
from quadnas.report.answer import Answer
from quadnas.report.tables import describe_kernels


def predict_onnx_latency(
    path: Path, device: str, batch: int | None, input_size: int | None, measured: Measured | None = None
) -> Answer:
    """The predicted latency of any network in an ONNX file, kernel by kernel, found by nn-Meter's detector.

    A ``measured`` latency is recorded. Raises ConfigError for a file that was exported for more images than the
    device is asked for, and what ``quadnas.nnmeter.detector.detect`` raises.
    """
    model = load_corrected(device, batch)
    detected = detect(path, model.card.fusion, input_size)
    exported, *rest = detected.shape
    if exported not in (1, model.batch):
        raise ConfigError(
            f"{path} was exported for batch {exported}, the prediction is for batch {model.batch}; export the "
            f"network for one image, or give --batch {exported}"
        )
    kernels = [replace(kernel, batch=model.batch) for kernel in detected.kernels]
    size = "x".join(map(str, rest[1:] if len(rest) == 3 else rest))
    answer, text = describe_kernels(model, kernels, size, measured)
    notes = [f"left out: {count} {what}" for what, count in detected.notes.items()]
    return answer | {"notes": notes}, "\n".join((text, *notes))
