"""The front of a search under several limits: accuracy against latency, as a picture and in words."""

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

from quadnas.report.facts import ms, percent
from quadnas.run.folder import RunFolder
from quadnas.search.result import SearchResult

FILE_NAME = "front.png"


def write_front(run: RunFolder, front: Sequence[SearchResult]) -> None:
    """Draw several results, the tightest limit first, into a run whose lock is held; one result is no front."""
    if len(front) > 1:
        buffer = io.BytesIO()
        draw_front(front).savefig(buffer, format="png", dpi=120, metadata={"Software": None})
        run.write(FILE_NAME, buffer.getvalue())


def draw_front(front: Sequence[SearchResult]) -> Figure:
    """Accuracy over predicted latency, with the limits as dashed lines."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    latencies_ms = [result.latency_ms for result in front]
    axes.plot(latencies_ms, [100 * result.accuracy for result in front], "o-", color="C0")
    for result in front:
        axes.axvline(result.limit_ms, color="0.6", linestyle="--", linewidth=0.9)
    axes.set(
        xlabel=f"predicted latency on {front[0].device}, ms (dashed: limits)",
        ylabel="accuracy, %",
        xlim=(0, None),
    )
    axes.grid(color="0.92", linewidth=0.7)
    axes.set_axisbelow(True)
    return figure


def front_text(front: Sequence[SearchResult]) -> str:
    """One line for every limit, behind a summary; nothing for one result."""
    if len(front) == 1:
        return ""
    lines = ["", f"{'limit':>9}  {'latency':>11}  {'accuracy':>8}  model"]
    lines += [
        f"{f'{result.limit_ms:g} ms':>9}  {ms(result.latency_ms):>11}  {percent(result.accuracy):>8}  "
        f"{result.files['model']}"
        for result in front
    ]
    return "\n" + "\n".join(lines)
