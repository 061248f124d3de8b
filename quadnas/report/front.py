"""The front of a search under several limits: accuracy against latency, as a picture and in words."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quadnas.report.facts import accuracy_interval, accuracy_range, ms, percent
from quadnas.run.folder import RunFolder
from quadnas.search.result import SearchResult

FILE_NAME = "front.png"


def write_front(run: RunFolder, front: Sequence[SearchResult]) -> None:
    """Draw several results, the tightest limit first, into a run whose lock is held; one result is no front."""
    if len(front) > 1:
        buffer = io.BytesIO()
        _picture(front).savefig(buffer, format="png", dpi=120, metadata={"Software": None})
        run.write(FILE_NAME, buffer.getvalue())


def _picture(front: Sequence[SearchResult]) -> Figure:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    draw_front(axes, front, "C0", "0.6")
    axes.set_xlabel(f"predicted latency on {front[0].device}, ms")
    axes.set_xlim(left=0)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    axes.grid(color="0.92", linewidth=0.7)
    axes.set_axisbelow(True)
    return figure


def draw_front(axes: Axes, front: Sequence[SearchResult], colour: str, limit_colour: str) -> None:
    """Accuracy with its interval over predicted latency, with the limits as dashed lines."""
    for number, result in enumerate(front):
        label = "" if number else "limits"
        axes.axvline(result.limit_ms, color=limit_colour, linestyle="--", linewidth=0.9, label=label)
    accuracies = 100 * np.array([result.accuracy for result in front])
    lows, highs = 100 * np.array([accuracy_interval(result) for result in front]).T
    axes.errorbar(
        [result.latency_ms for result in front], accuracies, yerr=[accuracies - lows, highs - accuracies],
        fmt="o-", color=colour, capsize=2, elinewidth=0.9, label="networks, 95 % by their test images",
    )  # fmt: skip
    axes.set_ylabel("accuracy in %")


def front_text(front: Sequence[SearchResult]) -> str:
    """One line for every limit, behind a summary; nothing for one result."""
    if len(front) == 1:
        return ""
    lines = ["", f"{'limit':>9}  {'latency':>11}  {'accuracy':>8}  {'95% interval':>14}  model"]
    lines += [
        f"{f'{result.limit_ms:g} ms':>9}  {ms(result.latency_ms):>11}  {percent(result.accuracy):>8}  "
        f"{accuracy_range(result):>14}  {result.files['model']}"
        for result in front
    ]
    return "\n" + "\n".join(lines)
