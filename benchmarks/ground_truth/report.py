"""What the table of a ground truth says: printed, and as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.ground_truth.analysis import (
    agreement,
    ceiling,
    likely_truth,
    quality,
    seed_noise,
    spread_within_bands,
)
from benchmarks.ground_truth.fit import (
    Fit,
    Floats,
    best_within,
    fit,
    grouped,
    labels_of,
    latencies,
    limit_within,
    whole_space,
)
from benchmarks.ground_truth.plan import FINAL_SEEDS, Truth, latency_tables, limit_points
from benchmarks.ground_truth.table import Row, TruthTable
from quadnas.compare.statistics import mean_interval
from quadnas.data.base import load_data
from quadnas.errors import DataError
from quadnas.latency.table import CostTable
from quadnas.network import load_space
from quadnas.space.search_space import SearchSpace

FEWEST = 20
"""Networks for a fit."""
SHOWN = 3
"""Networks under each limit."""
SCORES = {"accuracy": (100.0, "points of accuracy"), "loss": (1.0, "nats of cross-entropy")}
"""Factor and unit of what is fitted."""


def report(truth: Truth, path: Path, picture: Path | None) -> None:
    """Print noise, ceiling, fit, effects and the best networks of a table; raises DataError for too few rows."""
    space, table = load_space(truth.space), TruthTable(path)
    data = load_data(truth.data, limit=truth.train_images)
    tables = latency_tables(truth, space, len(data.classes))
    rows = [row for row in table.rows() if row.seed not in FINAL_SEEDS]
    if len({row.architecture for row in rows}) < FEWEST:
        raise DataError(f"{path} holds too few networks for a fit: at least {FEWEST} are needed; train more")
    seconds = sum(row.seconds for row in table.rows())
    planned = truth.networks + truth.repeated * (truth.seeds - 1)
    print(
        f"{path}: {len(table.rows())} trainings ({len(rows)} of {planned} that choose the finalists), "
        f"{seconds / 3600:.2f} CPU hours\n"
    )
    fits = {}
    for key in SCORES:
        fits[key] = _print_score(truth, space, rows, key)
    _print_effects(space, fits["loss"])
    _print_best(truth, space, tables, fits["loss"], table.rows())
    if picture:
        effects_picture(space, {key: fits[key] for key in SCORES}, rows, truth.devices).savefig(
            picture, dpi=120
        )


def _print_score(truth: Truth, space: SearchSpace, rows: Sequence[Row], key: str) -> Fit:
    factor, unit = SCORES[key]
    groups, labels = grouped(rows, key), labels_of(space, rows, key)
    fitted = fit(space, labels)
    found = quality(fitted, labels)
    low, high = factor * labels.scores.min(), factor * labels.scores.max()
    print(f"{key}, in {unit}: {len(groups)} networks from {low:.4g} to {high:.4g}")
    print(
        f"  fit: {found.r2:.3f} of the variance of held-out networks, tau {found.tau.value:.3f} "
        f"[{found.tau.low:.3f}, {found.tau.high:.3f}]; weight of pairs {fitted.pair_share:g}, "
        f"ridge {fitted.ridge:.3g}"
    )
    seeds = seed_noise(groups, truth.seeds)
    if seeds is None:
        print(f"  fewer than two networks have {truth.seeds} seeds yet: nothing is known of the noise\n")
        return fitted
    noise = seeds.own
    true = likely_truth(fitted, labels, noise)
    between, count = agreement(groups, truth.seeds)
    whole = ceiling(true, noise)
    print(
        f"  noise of one training: {factor * noise.deviation:.4g} ({noise.freedom} degrees of freedom), beside "
        f"{factor * seeds.seeds:.4g} that a seed adds to all networks alike\n"
        f"  tau between two seeds of {count} networks: {between:.3f}\n"
        f"  ceiling of tau with one seed of all of them: {whole.tau:.3f} [{whole.low:.3f}, {whole.high:.3f}]"
    )
    costs = _costs(rows, groups, truth.devices)
    for device in truth.devices:
        band = ceiling(true, noise, costs[device])
        spread = factor * spread_within_bands(true, costs[device])
        print(
            f"    within +-5 % of the latency on {device}: {band.tau:.3f} [{band.low:.3f}, {band.high:.3f}], "
            f"{band.pairs} pairs; scores there differ by up to {spread:.3g}"
        )
    print()
    return fitted


def _costs(
    rows: Sequence[Row], groups: Mapping[str, object], devices: Sequence[str]
) -> dict[str, list[float]]:
    """The latencies by device, in the order of the groups."""
    by_name = {row.architecture: row.latency_ms for row in rows}
    return {device: [by_name[name][device] for name in groups] for device in devices}


def _print_effects(space: SearchSpace, fitted: Fit) -> None:
    labels = space.slots[0].labels
    print("main effects on the cross-entropy, in 1/1000 nats (negative is better)")
    print("  slot stage " + "".join(f"{label.removeprefix('quadra-'):>10}" for label in labels))
    for number, (slot, effect) in enumerate(zip(space.slots, fitted.model.effects(), strict=True), 1):
        print(f"  {number:>4}{slot.stage + 1:>6} " + "".join(f"{1e3 * value:>10.1f}" for value in effect))
    print()


def _print_best(
    truth: Truth, space: SearchSpace, tables: Mapping[str, CostTable], fitted: Fit, rows: Sequence[Row]
) -> None:
    scores = -whole_space(fitted.model)
    finals = grouped([row for row in rows if row.seed in FINAL_SEEDS], "accuracy")
    for device, share in limit_points(truth):
        costs_ms, limit_ms = latencies(tables[device]), limit_within(tables[device], share)
        print(f"best fitted within {limit_ms:.4g} ms on {device} ({share:.0%} of the range)")
        for choices in best_within(scores, costs_ms, limit_ms, SHOWN):
            name = str(space.architecture(choices))
            trained = finals.get(name, [])
            means = mean_interval(trained) if trained else None
            print(
                f"  {-scores[choices]:.4f} nats {costs_ms[choices]:>8.4g} ms  {name.replace('quadra-', '')}"
                + (f"  {100 * means.value:.2f} % over {means.count}" if means else "")
            )
    print()


def effects_picture(
    space: SearchSpace, fits: Mapping[str, Fit], rows: Sequence[Row], devices: Sequence[str]
) -> Figure:
    """Every network over its latency on the devices, and the main effects of every slot's candidates."""
    figure = Figure(figsize=(13, 7), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False)[:, 0]
    for axes, device in zip(
        upper.subplots(1, len(devices), sharey=True, squeeze=False)[0], devices, strict=True
    ):
        for first, colour in ((True, "#2563c4"), (False, "#d9780f")):
            shown = [row for row in rows if (row.seed == 0) == first]
            axes.plot(
                [row.latency_ms[device] for row in shown], [100 * row.accuracy for row in shown],
                ".", color=colour, markersize=4, label="seed 0" if first else "other seeds",
            )  # fmt: skip
        axes.set_xlabel(f"{device}, ms predicted")
        axes.set_ylabel("test accuracy, %")
        axes.legend(frameon=False)
    panels = lower.subplots(1, len(fits), squeeze=False)[0]
    for axes, (key, fitted) in zip(panels, fits.items(), strict=True):
        factor, unit = SCORES[key]
        values: Floats = factor * np.stack(fitted.model.effects())
        bound = float(abs(values).max())
        shown = axes.imshow(
            values, cmap="RdBu" if key == "accuracy" else "RdBu_r", vmin=-bound, vmax=bound, aspect="auto"
        )
        slots = [f"{n} (stage {slot.stage + 1})" for n, slot in enumerate(space.slots, 1)]
        axes.set_yticks(range(len(slots)), slots)
        labels = [label.removeprefix("quadra-") for label in space.slots[0].labels]
        axes.set_xticks(range(len(labels)), labels)
        axes.set_title(f"main effects, {unit}")
        lower.colorbar(shown, ax=axes)
    return figure
