"""The searches side by side in a picture: regret by limit, and how well supernets rank networks."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.ground_truth.contests import gathered, mean_regret
from benchmarks.ground_truth.ranking import (
    EFFECTS,
    EVERYWHERE,
    EXCESS,
    HELD_OUT,
    OWN,
    SIZE,
    WEIGHTS,
    Taus,
)
from benchmarks.ground_truth.regret import HIGHER_IS_BETTER, Judged
from quadnas.compare.statistics import mean_interval

COLOURS = {
    "swap": "#2563c4",
    "proxyless": "#d9780f",
    "evolution": "#2a8a3e",
    "random": "#8b3fa8",
    "largest": "0.45",
    "(fit)": "black",
}
MARKERS = {WEIGHTS: "o", OWN: "s", SIZE: "^", EFFECTS: "D", HELD_OUT: "v"}


def contest_picture(
    verdicts: Sequence[Judged], taus: Mapping[tuple[str, str], Mapping[int, Taus]], highest: Taus
) -> Figure:
    """Regret under each limit by both scores, and tau with its ceilings; bars are 95 % intervals."""
    figure = Figure(figsize=(15, 5), layout="constrained")
    *left, right = figure.subplots(1, len(HIGHER_IS_BETTER) + 1)
    for axes, key in zip(left, HIGHER_IS_BETTER, strict=True):
        _draw_regret(axes, verdicts, key)
    _draw_taus(right, taus, highest)
    handles, labels = left[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    marks = [
        Line2D([], [], color="0.3", linestyle="", marker=mark, label=f"tau by {by}")
        for by, mark in MARKERS.items()
    ]
    figure.legend(handles=marks, loc="outside upper right", ncols=len(marks), frameon=False)
    return figure


def _draw_regret(axes: Axes, verdicts: Sequence[Judged], key: str) -> None:
    points = list(dict.fromkeys(one.point for one in verdicts))
    strategies = gathered(verdicts, lambda one: one.strategy)
    for number, (strategy, group) in enumerate(strategies.items()):
        found = {
            point: mean_regret(own, key) for point, own in gathered(group, lambda one: one.point).items()
        }
        shift = 0.7 * ((number + 0.5) / len(strategies) - 0.5)
        axes.errorbar(
            [points.index(point) + shift for point in found], [mean.value for mean in found.values()],
            yerr=[mean.half or 0.0 for mean in found.values()],
            fmt="o", markersize=4, capsize=2, color=COLOURS.get(strategy), label=strategy,
        )  # fmt: skip
    axes.axhline(0, color="0.4", linestyle="--", linewidth=0.9)
    axes.set_xticks(range(len(points)), [f"{device}\n{share:.0%}" for device, share in points])
    axes.set_ylabel(f"regret in {key}, deviations of one training")


def _draw_taus(axes: Axes, taus: Mapping[tuple[str, str], Mapping[int, Taus]], highest: Taus) -> None:
    places = [place for place in highest if place != EXCESS]
    for number, ((strategy, by), seeds) in enumerate(taus.items()):
        means = [mean_interval([found[place] for found in seeds.values()]) for place in places]
        shift = 0.7 * ((number + 0.5) / len(taus) - 0.5)
        axes.errorbar(
            [place + shift for place in range(len(places))], [mean.value for mean in means],
            yerr=[mean.half or 0.0 for mean in means], fmt=MARKERS[by],
            markersize=4, capsize=2, color=COLOURS.get(strategy),
        )  # fmt: skip
    for number, place in enumerate(places):
        axes.plot(
            [number - 0.4, number + 0.4], [highest[place]] * 2, color="0.4", linestyle="--", linewidth=0.9
        )
    titles = [place if place == EVERYWHERE else f"±5 % on\n{place}" for place in places]
    axes.set_xticks(range(len(places)), titles)
    axes.set_ylabel("Kendall's tau (dashed: ceiling)")
