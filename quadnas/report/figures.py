"""The curves of a search as inline SVG whose colours follow the page's light or dark theme."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quadnas.report.front import draw_front
from quadnas.search.result import SearchResult

_POINTS = 200
# matplotlib knows no CSS variables, so each colour is drawn as a stand-in and renamed in the finished SVG.
_INK, _MUTED, _FIRST, _SECOND, _LIMIT = (f"#00000{digit}" for digit in range(1, 6))
_VARIABLES = {_INK: "ink", _MUTED: "muted", _FIRST: "first", _SECOND: "second", _LIMIT: "limit"}
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "quadnas",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.xmargin": 0.01,
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.solid_joinstyle": "round",
}

Events = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Curve:
    """One drawing: what it shows in words, and the SVG element."""

    title: str
    svg: str


def curves(
    events: Events,
    limit_ms: float,
    feasible_ms: tuple[float, float],
    answer: SearchResult | None,
    front: Sequence[SearchResult] = (),
) -> tuple[Curve, ...]:
    """Loss, accuracy, latency and multiplier over the steps of a journal; those without events are left out.

    The same events always give the same text. Latencies in ms, accuracies in per cent; ``answer`` is None while
    the search runs.
    """
    weight = [event for event in events if event["event"] == "WeightStep"]
    architecture = [event for event in events if event["event"] == "ArchitectureStep"]
    found = []
    with mpl.rc_context(_STYLE):
        if front:
            found.append(Curve("Accuracy under every limit", _front(front)))
        if weight:
            found.append(Curve("Loss", _training(weight, architecture, "loss")))
            found.append(Curve("Accuracy", _training(weight, architecture, "accuracy", answer)))
        if architecture:
            found.append(
                Curve("Latency against the limit", _latency(architecture, limit_ms, feasible_ms, answer))
            )
            found.append(Curve("Multiplier of the latency term", _multiplier(architecture)))
    return tuple(found)


def _training(weight: Events, architecture: Events, key: str, answer: SearchResult | None = None) -> str:
    """Training batches of all phases one after the other, with those of the architecture steps."""
    figure, axes = _axes()
    scale = 100.0 if key == "accuracy" else 1.0
    offsets = _phase_offsets(weight)
    for number, (phase, offset) in enumerate(offsets.items()):
        steps, values = _means([event for event in weight if event["phase"] == phase], key)
        start = offset + steps[0]
        axes.plot(offset + steps, scale * values, color=_FIRST, label="" if number else "training batches")
        if number:
            axes.axvline(start, color=_MUTED, linewidth=0.7, linestyle=":")
        axes.annotate(
            f" {phase}", (start, 1), xycoords=("data", "axes fraction"), color=_MUTED, va="bottom", fontsize=8
        )
    if architecture:
        steps, values = _means(architecture, key)
        label = "batches of the architecture steps"
        axes.plot(offsets.get("search", 0) + steps, scale * values, color=_SECOND, label=label)
    if answer is not None:
        axes.axhline(100 * answer.accuracy, color=_LIMIT, linestyle="--", label="answer, test split")
    axes.set_ylabel("accuracy in %" if key == "accuracy" else "mean loss")
    return _svg(figure, axes, key, "training step")


def _latency(
    architecture: Events, limit_ms: float, feasible_ms: tuple[float, float], answer: SearchResult | None
) -> str:
    figure, axes = _axes()
    axes.axhspan(*feasible_ms, color=_MUTED, alpha=0.13, linewidth=0, label="range of the space")
    for key, colour, label in (
        ("argmax_ms", _SECOND, "most probable network"),
        ("expected_ms", _FIRST, "expected"),
    ):
        steps, values = _means(architecture, key)
        axes.plot(steps, values, color=colour, label=label)
    axes.axhline(limit_ms, color=_LIMIT, linestyle="--", label="limit")
    last = architecture[-1]
    if last["limit_ms"] != limit_ms:
        axes.axhline(last["limit_ms"], color=_LIMIT, linestyle=":", label="limit less the margin")
    if answer is not None:
        axes.plot(last["step"], answer.bound_ms, "o", color=_INK, label="answer", clip_on=False)
    axes.set_ylabel("what is held to the limit, ms")
    return _svg(figure, axes, "latency", "training step")


def _front(front: Sequence[SearchResult]) -> str:
    figure, axes = _axes()
    draw_front(axes, front, _FIRST, _LIMIT)
    return _svg(figure, axes, "front", f"predicted latency on {front[0].device}, ms")


def _multiplier(architecture: Events) -> str:
    figure, axes = _axes()
    steps, values = _means(architecture, "multiplier")
    axes.plot(steps, values, color=_FIRST)
    axes.set_ylabel("multiplier")
    axes.set_ylim(bottom=0)
    return _svg(figure, axes, "multiplier", "training step")


def _phase_offsets(weight: Events) -> dict[str, int]:
    """What to add to the steps of each phase so that the phases follow one another.

    A phase that counts on from the one before adds nothing to it; one that starts anew comes after it.
    """
    offsets: dict[str, int] = {}
    offset, last = 0, 0
    for phase in dict.fromkeys(event["phase"] for event in weight):
        steps = [event["step"] for event in weight if event["phase"] == phase]
        if min(steps) <= last:
            offset += last
        offsets[phase], last = offset, max(steps)
    return offsets


def _means(events: Events, key: str) -> tuple[Any, Any]:
    """Steps and values as arrays, averaged over neighbours where there are too many points to draw."""
    bins = min(len(events), _POINTS)
    steps = np.array_split([float(event["step"]) for event in events], bins)
    values = np.array_split([float(event[key]) for event in events], bins)
    return np.array([s.mean() for s in steps]), np.array([v.mean() for v in values])


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.1), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.subplots()
    axes.patch.set_visible(False)
    axes.grid(axis="y", color=_MUTED, alpha=0.22, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure, axes: Axes, name: str, xlabel: str) -> str:
    """The <svg> element, without metadata; ids carry ``name`` so that several fit on one page."""
    axes.set_xlabel(xlabel)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
