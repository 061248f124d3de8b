"""A tiny device whose prices can be worked out by hand."""

import numpy as np
from numpy.typing import NDArray

from quadnas.config import validated
from quadnas.latency.backends.additive import Additive
from quadnas.latency.card import DeviceCard

ARRAYS: dict[str, NDArray[np.float64]] = {
    "conv": np.array([2e-6, 0.5]),
    "add": np.array([1e-3]),
    "fc": np.array([0.0]),
}


def facts() -> dict[str, object]:
    """1 us launch, 1 GMAC/s, 1 GB/s at 4 bytes: 1 MMAC takes 1 ms, 250 k elements take 1 ms."""
    return {
        "format": "quadnas-device/1",
        "device": "toy",
        "description": "a device to compute by hand",
        "runtime": "none",
        "precision": "fp32",
        "bytes_per_element": 4,
        "batch": 2,
        "batches": [1, 4],
        "measured_batch": 2,
        "source": "analytical",
        "provenance": "made up for the tests",
        "licence": "none",
        "back_end": "additive",
        "measured_column": "toy",
        "launch_us": 1.0,
        "peak_gmacs_per_second": 1.0,
        "peak_gbytes_per_second": 1.0,
        "extrapolation_error": 0.2,
        "fusion": [["conv", "bn"], ["bn", "relu"]],
        "folded": ["bn", "relu"],
        "terms": {"conv": ["macs", "calls"], "add": ["elements"], "fc": ["weights"]},
        "surrogates": {"mul": {"reference": "add", "factor": 3.0, "error": 0.1, "reason": "made up"}},
    }


def card(**changes: object) -> DeviceCard:
    """The tiny device's card."""
    span = {"h": [7, 14], "cin": [8, 64], "cout": [8, 64], "kernels": [1, 3], "strides": [1, 2]}
    sampled = [{"batches": [2, 2], **span}]
    data = {
        **facts(),
        "held_out": {
            "models": 10,
            "uncovered_models": 0,
            "within_5": 0.9,
            "within_10": 1.0,
            "within_15": 1.0,
            "rmspe": 0.03,
            "spearman": 1.0,
        },
        "families_left_out": [],
        "error_quantiles": [[0.05, 0.9], [0.5, 0.98], [0.9, 1.1], [0.95, 1.14]],
        "sampled": {"conv": sampled, "add": sampled, "fc": sampled},
        "arrays": {"coefficients.safetensors": "0" * 64},
        **changes,
    }
    return validated(data, DeviceCard, "toy card")


def model(batch: int = 2) -> Additive:
    """The tiny device's model."""
    return Additive(card(), ARRAYS, batch)
