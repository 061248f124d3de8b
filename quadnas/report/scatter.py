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
from quadnas.latency.devices import find_device, load_device
from quadnas.report.answer import Answer
from quadnas.run.atomic import commit_bytes

FORMATS = (".png", ".svg", ".pdf")
_BAND = 0.10
_MARKERS = "osD^vP*X"
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#222222", "#ee7733")


@dataclass(frozen=True, slots=True)
class Errors:
    """A device on n measured networks: its figures, and (n,) families, measured and predicted ms (NaN: none)."""

    title: str
    figures: dict[str, Any]
    families: NDArray[np.str_]
    measured_ms: NDArray[np.float64]
    predicted_ms: NDArray[np.float64]


def check_and_draw(device: str, data: Path, picture: Path | None) -> Answer:
    """A device's errors on measured networks as figures, and as a picture if there is a path for one."""
    if picture is not None and picture.suffix not in FORMATS:
        raise ConfigError(f"{picture}: a picture ends in {', '.join(FORMATS)}, for example error.png")
    errors = check_device(device, data)
    figures = errors.figures
    lines = [
        f"{errors.title}: {figures['within_5']:.1%} {figures['within_10']:.1%} {figures['within_15']:.1%} "
        f"within 5, 10, 15 %; {figures['uncovered_models']} without a total"
    ]
    for family, row in figures["families"].items():
        lines.append(f"  {family:<20}{row['models']:>7,} networks, {row['within_10']:.1%} within 10 %")
    if picture is not None:
        draw(errors, picture)
        lines.append(f"picture: {picture}")
    return figures, "\n".join(lines)


def check_device(device: str, data: Path) -> Errors:
    """Predict the measured networks of a file: the held-out ones if the device was fitted here, else all.

    Raises ConfigError or DataError for a file without networks of the device.
    """
    _, card = find_device(device)
    model = load_device(device, card.measured_batch)
    networks = read_measured(data, card.measured_column, card.measured_batch, card.reading)
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


def draw(errors: Errors, path: Path) -> None:
    """Predicted over measured ms on logarithmic axes, by family, with the band of 10 %, and the ratio of both.

    ``path`` ends in one of ``FORMATS``. Raises MachineError if it cannot be written.
    """
    with mpl.rc_context({"svg.hashsalt": "quadnas", "font.size": 9}):
        figure = _figure(errors)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=path.suffix[1:], dpi=150)
    commit_bytes(path, buffer.getvalue())


def _figure(errors: Errors) -> Figure:
    figure = Figure(figsize=(6.4, 8.0), layout="constrained")
    totals, ratios = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    known = ~np.isnan(errors.predicted_ms)
    measured, predicted = errors.measured_ms[known], errors.predicted_ms[known]
    values = np.concatenate([measured, predicted])
    ends = np.array([values.min() * 0.85, values.max() * 1.18]) if len(values) else np.array([1.0, 10.0])
    totals.fill_between(ends, ends * (1 - _BAND), ends * (1 + _BAND), color="0.88", label="within 10 %")
    ratios.axhspan(1 - _BAND, 1 + _BAND, color="0.88")
    for axes, middle in ((totals, ends), (ratios, np.ones(2))):
        axes.plot(ends, middle, color="0.5", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.grid(which="both", color="0.94", linewidth=0.5)
    for number, family in enumerate(np.unique(errors.families)):
        chosen = errors.families[known] == family
        style = {
            "color": _COLOURS[number % len(_COLOURS)],
            "marker": _MARKERS[number // len(_COLOURS) % len(_MARKERS)],
            "linestyle": "none",
            "markersize": 2.5,
            "alpha": 0.6,
            "markeredgewidth": 0,
        }
        share = errors.figures["families"][str(family)]["within_10"]
        totals.plot(measured[chosen], predicted[chosen], label=f"{family} ({share:.0%})", **style)
        ratios.plot(measured[chosen], (predicted / measured)[chosen], **style)
    totals.set(xscale="log", yscale="log", xlim=ends, ylim=ends, ylabel="predicted, ms")
    reach = max(2 * _BAND, float(np.abs(predicted / measured - 1).max(initial=0)) * 1.1)
    ratios.set(xlabel="measured, ms", ylabel="predicted / measured", ylim=(max(1 - reach, 0), 1 + reach))
    totals.set_title(f"{errors.title}: {errors.figures['within_10']:.1%} within 10 %", fontsize=10)
    totals.legend(title="family (share within 10 %)", fontsize=8, title_fontsize=8, markerscale=3)
    return figure
