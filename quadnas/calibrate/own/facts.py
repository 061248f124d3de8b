"""What is known of a device of one's own before it is fitted: peaks, candidate terms, stand-ins."""

import platform
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quadnas.calibrate.measured import MeasuredNetwork
from quadnas.calibrate.own.fusion_rules import Rules
from quadnas.calibrate.own.settings import CalibrateSettings
from quadnas.config import validated
from quadnas.latency.card import DeviceFacts
from quadnas.latency.kernels import Kernel
from quadnas.latency.names import parts
from quadnas.latency.terms import vectors
from quadnas.latency.terms.general import TERMS, Shapes, peak_work

HEADROOM = 3.0
"""A peak is what the best measured graph reached times this: a kernel in it can be that much above its mean."""

BYTES = 4

Values = NDArray[np.float64]
_EXPORTED = ("conv", "dwconv", "fc", "global-pool", "add", "mul", "gelu", "layernorm")
_STAND_INS = {
    "relu": ("gelu", 0.5, 0.5, "one input, less arithmetic than GELU"),
    "hswish": ("gelu", 0.7, 0.5, "one input, less arithmetic than GELU"),
    "hsigmoid": ("gelu", 0.7, 0.5, "one input, less arithmetic than GELU"),
    "swish": ("gelu", 1.0, 0.5, "one input and an exponential, like GELU"),
    "sigmoid": ("gelu", 1.0, 0.5, "one input and an exponential, like GELU"),
    "sub": ("add", 1.0, 0.2, "the same traffic and as many instructions"),
    "scale": ("mul", 1.0, 0.3, "a product by one factor per channel"),
    "bn": ("layernorm", 1.0, 0.5, "a product and a sum with one value per channel each"),
    "concat": ("add", 1.0, 0.5, "the same traffic"),
    "split": ("add", 1.0, 0.5, "the same traffic"),
    "max-pool": ("dwconv", 1.0, 0.5, "as many values are read"),
    "avg-pool": ("dwconv", 1.0, 0.5, "as many values are read"),
}


def facts_of(
    settings: CalibrateSettings, runtime: str, rules: Rules, measured: Sequence[MeasuredNetwork]
) -> DeviceFacts:
    """The facts of a device whose kernels and networks were ``measured``; ``runtime`` describes what ran them."""
    macs, elements, kernels = _work(measured, rules.folded)
    measured_ms = np.array([network.latency_ms for network in measured])
    terms = {op: [*TERMS.get(op, {}), *vectors.TERMS.get(op, {})] for op in _EXPORTED}
    return validated(
        {
            "format": "quadnas-device/1",
            "device": settings.device,
            "description": f"{_processor()}, {settings.threads} thread{'s'[: settings.threads > 1]}, pinned",
            "runtime": runtime,
            "precision": "fp32",
            "bytes_per_element": BYTES,
            "batch": 1,
            "batches": [1, 1],
            "measured_batch": 1,
            "source": "fitted",
            "provenance": "kernels and whole networks measured on this machine by quadnas calibrate; networks of "
            f"{settings.space} at {settings.input_size} x {settings.input_size} pixels",
            "licence": "measured by the user",
            "back_end": "additive",
            "measured_column": settings.device,
            "launch_us": _digits(float(np.min(measured_ms / kernels)) * 1e3 / HEADROOM / 2),
            "peak_gmacs_per_second": _digits(float(np.max(macs / measured_ms)) / 1e6 * HEADROOM),
            "peak_gbytes_per_second": _digits(float(np.max(elements / measured_ms)) * BYTES / 1e6 * HEADROOM),
            "extrapolation_error": 0.3,
            "fusion": rules.fusion,
            "folded": rules.folded,
            "terms": terms,
            "surrogates": {
                op: {"reference": reference, "factor": factor, "error": error, "reason": reason}
                for op, (reference, factor, error, reason) in _STAND_INS.items()
            },
            "winners_space": settings.space,
        },
        DeviceFacts,
        "facts of the device",
    )


def _work(measured: Sequence[MeasuredNetwork], folded: Sequence[str]) -> tuple[Values, Values, Values]:
    """Per network: multiply-accumulates, elements that must move, and the number of kernels."""
    work = np.zeros((3, len(measured)))
    by_op: dict[str, list[tuple[int, Kernel]]] = {}
    for owner, network in enumerate(measured):
        work[2, owner] = len(network.kernels)
        for kernel in network.kernels:
            for part in parts(kernel, folded):
                by_op.setdefault(part.op, []).append((owner, part))
    for op, found in by_op.items():
        owners, kernels = zip(*found, strict=True)
        for row, values in zip(work, peak_work(op, Shapes.of(kernels)), strict=False):
            np.add.at(row, list(owners), values)
    return work[0], work[1], work[2]


def _digits(value: float) -> float:
    return float(f"{value:.3g}")


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
