"""Predicted against measured: the figures of a device on measured networks, and a picture of them."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from quadnas.calibrate.evaluate import evaluate, predict_ms
from quadnas.calibrate.measured import read_measured
from quadnas.errors import ConfigError
from quadnas.latency.card import DeviceCard
from quadnas.latency.devices import load_device
from quadnas.run.atomic import commit_bytes

FORMATS = (".png", ".svg", ".pdf")
_BAND = 0.10
_MARKERS = "osD^vP*X<>"


@dataclass(frozen=True, slots=True)
class Errors:
    """A device on n measured networks: its figures, and (n,) families, measured and predicted ms (NaN: none)."""

    title: str
    figures: dict[str, Any]
    families: NDArray[np.str_]
    measured_ms: NDArray[np.float64]
    predicted_ms: NDArray[np.float64]


def check_device(device: str, data: Path) -> Errors:
    """Predict the measured networks of a file: the held-out ones if the device was fitted here, else all.

    Raises ConfigError or DataError for a file without networks of the device.
    """
    card = load_device(device).card
    model = load_device(device, card.measured_batch)
    networks = read_measured(data, card.measured_column, card.measured_batch)
    kept = [network for network in networks if network.held_out or card.held_out is None]
    if not kept:
        raise ConfigError(
            f"{data}: none of its {len(networks)} networks belongs to the held-out fifth; give more"
        )
    name = "measured networks" if card.held_out is None else "held-out networks of the file"
    return Errors(
        f"{card.device} on {len(kept):,} {name}",
        evaluate(model, kept),
        np.array([network.family for network in kept]),
        np.array([network.latency_ms for network in kept]),
        predict_ms(model, kept),
    )


def draw(errors: Errors, card: DeviceCard, path: Path) -> None:
    """Predicted over measured ms on logarithmic axes, by family, with the band of 10 %.

    Raises ConfigError for a suffix outside ``FORMATS``, MachineError if the file cannot be written.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: a picture ends in {', '.join(FORMATS)}, for example error.png")
    with mpl.rc_context({"svg.hashsalt": "quadnas", "font.size": 9}):
        figure = _figure(errors, card)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=path.suffix[1:], dpi=150)
    commit_bytes(path, buffer.getvalue())


def _figure(errors: Errors, card: DeviceCard) -> Figure:
    figure = Figure(figsize=(6.4, 6.2), layout="constrained")
    axes = figure.subplots()
    known = ~np.isnan(errors.predicted_ms)
    values = np.concatenate([errors.measured_ms[known], errors.predicted_ms[known]])
    ends = np.array([values.min() * 0.85, values.max() * 1.18]) if len(values) else np.array([1.0, 10.0])
    axes.fill_between(
        ends, ends * (1 - _BAND), ends * (1 + _BAND), color="0.85", linewidth=0, label="within 10 %"
    )
    axes.plot(ends, ends, color="0.5", linewidth=0.8)
    colours = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, family in enumerate(np.unique(errors.families)):
        chosen = known & (errors.families == family)
        axes.scatter(
            errors.measured_ms[chosen],
            errors.predicted_ms[chosen],
            s=9,
            linewidths=0,
            alpha=0.65,
            color=[colours[number % len(colours)]],
            marker=_MARKERS[number // len(colours) % len(_MARKERS)],
            label=f"{family} ({errors.figures['families'][str(family)]['within_10']:.0%})",
        )
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    axes.set_xlabel("measured, ms")
    axes.set_ylabel("predicted, ms")
    axes.set_title(
        f"{errors.title}: {errors.figures['within_10']:.1%} within 10 %\n{card.runtime}", fontsize=10
    )
    axes.grid(which="both", color="0.93", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.legend(title="family (share within 10 %)", fontsize=8, title_fontsize=8, markerscale=2)
    return figure
