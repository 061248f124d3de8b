"""The pictures that several kinds of experiment draw."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quadnas.compare.table import Column, Row, Table, Value

OURS, RIVAL, PAPER = "#2563c4", "#9fb3cf", "#d9780f"
ABREAST = 3


@dataclass(frozen=True, slots=True)
class Panel:
    """One quantity of all arms: bars for the measured values, marks for the published ones; None is no value.

    With ``points``, the single values behind each mean, it has dots on an axis that shows their range instead.
    """

    column: Column
    ours: Sequence[float | None]
    paper: Sequence[float | None]
    points: Sequence[Sequence[float]] = ()


def value_panel(table: Table, key: str, *, with_paper: bool = True) -> Panel:
    """A column of the table; ``with_paper`` False where the paper measured on another machine."""
    column = next(column for column in table.columns if column.key == key)
    published = [row.paper.get(key) if with_paper else None for row in table.rows]
    return Panel(column, [number_of(row.values.get(key)) for row in table.rows], published)


def points_panel(table: Table, key: str, points: Sequence[Sequence[float]]) -> Panel:
    """A column of means, and the values that they are of."""
    panel = value_panel(table, key)
    return Panel(panel.column, panel.ours, panel.paper, points)


def ratio_panels(table: Table, quantity: str) -> list[Panel]:
    """A panel for every title that arms are held against."""
    titles = dict.fromkeys(title for row in table.rows for title in row.ratios)
    return [
        Panel(
            Column(f"ratio:{title}", f"{quantity}, times that of {title}", 3),
            [row.ratios.get(title) for row in table.rows],
            [row.paper_ratios.get(title) for row in table.rows],
        )
        for title in titles
    ]


def bars(rows: Sequence[Row], panels: Sequence[Panel]) -> Figure:
    """Panels of one quantity each, an arm on every line; the values stand at the ends of the bars.

    Darker are the arms that are held against others, if any are.
    """
    compared = any(row.ratios for row in rows)
    colours = [OURS if row.ratios or not compared else RIVAL for row in rows]
    figure, all_axes = panel_grid(len(panels), 0.7 + 0.28 * len(rows))
    for number, (axes, panel) in enumerate(zip(all_axes, panels, strict=True)):
        if panel.points:
            _draw_points(axes, panel)
        else:
            _draw_panel(axes, panel, colours)
        axes.set_yticks(range(len(rows)), [row.arm for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.8)
        axes.set_xlabel(panel.column.title)
        axes.grid(axis="x", color="0.9", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(labelleft=number % ABREAST == 0)
    if any(value is not None for panel in panels for value in panel.paper):
        all_axes[0].plot([], [], "D", color=PAPER, markersize=5, label="the paper")
        figure.legend(loc="outside lower center", frameon=False)
    return figure


def panel_grid(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels of ``height`` inches, three of them side by side."""
    abreast = min(count, ABREAST)
    lines = -(-count // abreast)
    figure = Figure(figsize=(3.4 * abreast + 1, height * lines + 0.5), layout="constrained")
    panels = list(figure.subplots(lines, abreast, squeeze=False).flat)
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels[:count]


@dataclass(frozen=True, slots=True)
class Cloud:
    """One arm's networks as (latency in ms, fraction correct), measured and published, and its limits in ms."""

    arm: str
    points: Sequence[tuple[float, float]]
    published: Sequence[tuple[float, float]] = ()
    limits_ms: Sequence[float] = ()


def draw_clouds(axes: Axes, clouds: Sequence[Cloud], xlabel: str) -> None:
    """Accuracy over latency: dots for networks, a mark for their mean, stars for the paper, dashed limits."""
    for number, (cloud, marker) in enumerate(zip(clouds, cycle("osD^vPX"), strict=False)):
        for published_ms, accuracy in cloud.published:
            axes.plot(published_ms, 100 * accuracy, "*", color=PAPER, markersize=11)
        if not cloud.points:
            continue
        colour = f"C{number % 10}"
        xs, ys = ([part[side] for part in cloud.points] for side in (0, 1))
        ys = [100 * y for y in ys]
        axes.plot(xs, ys, ".", color=colour, markersize=4, alpha=0.6)
        middle = sum(xs) / len(xs), sum(ys) / len(ys)
        axes.plot(*middle, marker, color=colour, label=cloud.arm, markersize=6)
        for limit_ms in cloud.limits_ms:
            axes.axvline(limit_ms, color="0.4", linestyle="--", linewidth=0.8)
    axes.set(xlabel=xlabel, ylabel="accuracy, %", xlim=(0, None))
    axes.grid(color="0.92", linewidth=0.7)
    axes.set_axisbelow(True)


def draw_differences(axes: Axes, table: Table) -> None:
    """A forest plot: every row's ``difference`` with ``low`` and ``high``, hollow where it has no interval."""
    for line, row in enumerate(table.rows):
        middle, low, high = (number_of(row.values.get(key)) for key in ("difference", "low", "high"))
        if middle is None:
            continue
        if low is not None and high is not None:
            axes.plot([100 * low, 100 * high], [line, line], "-", color=RIVAL, linewidth=3)
        axes.plot(100 * middle, line, "o", color=OURS, markerfacecolor="white" if low is None else OURS)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_yticks(range(len(table.rows)), [row.arm.replace(" minus ", "\nminus ") for row in table.rows])
    axes.set_ylim(len(table.rows) - 0.4, -0.6)
    axes.set_xlabel("difference, points (bar: 95 %)")
    axes.grid(axis="x", color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)


def _draw_panel(axes: Axes, panel: Panel, colours: Sequence[str]) -> None:
    """Measured values stand inside their bars, or beside a short one; the paper's beside its mark."""
    column = panel.column
    known = [value * column.scale for value in (*panel.ours, *panel.paper) if value is not None]
    reach = 1.2 * max(known, default=1.0)
    for line, (value, published) in enumerate(zip(panel.ours, panel.paper, strict=True)):
        if value is not None:
            end = value * column.scale
            inside = end > 0.3 * reach
            axes.barh(line, end, height=0.62, color=colours[line])
            axes.annotate(
                f" {column.text(value)} ",
                (end, line),
                va="center",
                ha="right" if inside else "left",
                color="white" if inside and colours[line] == OURS else "black",
                fontsize=8,
            )
        if published is not None:
            place = published * column.scale
            axes.plot(place, line, "D", color=PAPER, markersize=5, zorder=4)
            axes.annotate(
                f"  {column.text(published)}", (place, line), va="center", fontsize=8, color=PAPER, zorder=4
            )
    axes.set_xlim(0, reach)
    axes.locator_params(axis="x", nbins=5)


def _draw_points(axes: Axes, panel: Panel) -> None:
    scale = panel.column.scale
    for line, (mean, points) in enumerate(zip(panel.ours, panel.points, strict=True)):
        axes.plot([scale * value for value in points], [line] * len(points), "o", color=RIVAL, markersize=4)
        if mean is not None:
            axes.plot(scale * mean, line, "|", color=OURS, markersize=14, markeredgewidth=2)
            axes.annotate(
                panel.column.text(mean), (scale * mean, line - 0.3), ha="center", va="bottom", fontsize=8
            )
    axes.margins(x=0.15)


def number_of(value: Value) -> float | None:
    """The value if it is a number."""
    return float(value) if isinstance(value, int | float) else None
