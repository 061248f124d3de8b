"""Searches side by side: what each of them finds under its limit, over several seeds."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from statistics import fmean, stdev
from typing import Any

from matplotlib.figure import Figure
from pydantic import Field

from quadnas.compare.experiment import KINDS, Arm, ArmName, Bench, Experiment, Record, Seeds, Unit, Work
from quadnas.compare.figures import PAPER
from quadnas.compare.networks import cost_columns, latencies_ms, latency_key, require_devices, size_of
from quadnas.compare.table import Column, Table, Value
from quadnas.config import overlaid, validated
from quadnas.report.page import write_report
from quadnas.run.folder import RunFolder
from quadnas.search import loop
from quadnas.search.settings import SearchSettings
from quadnas.space.model_spec import load_model_spec


class SearchArm(Arm):
    """``search``: the settings of ``quadnas search`` in which this arm differs from the experiment's."""

    search: dict[str, Any] = Field(default_factory=dict)


@KINDS.register("search")
class Search(Experiment):
    """Every arm searches with every seed, as ``quadnas search --config`` does it.

    ``devices``: what is found is predicted on these too, whichever it was found for.
    """

    arms: Mapping[ArmName, SearchArm]
    search: dict[str, Any]
    seeds: Seeds = (0,)
    devices: tuple[str, ...] = ()

    def settings(self, arm: str, seed: int) -> SearchSettings:
        """The settings of one search; raises ConfigError."""
        merged = overlaid(overlaid(self.search, self.arms[arm].search), {"seed": seed})
        return validated(merged, SearchSettings, f"arms.{arm}.search")

    def prepare(self) -> "SearchWork":
        """Check every search: space, device, limit, data."""
        return SearchWork(self)

    def units(self) -> tuple[Unit, ...]:
        """Seed by seed."""
        return tuple(Unit(arm, f"seed{seed}") for seed in self.seeds for arm in self.arms)

    def columns(self) -> tuple[Column, ...]:
        """Accuracy first."""
        sizes = {self.settings(arm, self.seeds[0]).input_size for arm in self.arms}
        return (
            Column("accuracy", "accuracy, %", 2, 100),
            *([Column("deviation", "+- over seeds", 2, 100)] if len(self.seeds) > 1 else []),
            Column("limit_ms", "limit, ms", 2),
            Column("latency_ms", "latency, ms", 2),
            *cost_columns(self.devices, max(sizes)),
            Column("device", "device"),
        )

    def row(self, arm: str, records: Sequence[Record]) -> dict[str, Value]:
        """Over the seeds; the latency is the highest, for the limit must hold for all."""
        accuracies = [record["accuracy"] for record in records]
        means = ("parameters", "macs", *map(latency_key, self.devices))
        return {
            "accuracy": fmean(accuracies),
            "deviation": stdev(accuracies) if len(accuracies) > 1 else None,
            "limit_ms": records[0]["limit_ms"],
            "latency_ms": max(record["latency_ms"] for record in records),
            **{key: _mean([record[key] for record in records]) for key in means},
            "device": records[0]["device"],
        }

    def notes(self, records: Mapping[str, Sequence[Record]]) -> tuple[str, ...]:
        """The architectures that were found."""
        return tuple(f"{arm} found {rows[0]['architecture']} first." for arm, rows in records.items())

    def draw(self, table: Table, records: Mapping[str, Sequence[Record]]) -> Figure:
        """Accuracy over latency, with the limits."""
        return _against_limits(table, records)


class SearchWork(Work):
    """Searches in run folders of their own."""

    def __init__(self, experiment: Search) -> None:
        self._experiment = experiment
        require_devices(experiment.devices)
        inputs: dict[str, object] = {}
        for arm in experiment.arms:
            found = loop.prepare(experiment.settings(arm, experiment.seeds[0])).inputs
            inputs.update({f"{name} of {arm}": value for name, value in found.items()})
        self.inputs: Mapping[str, object] = inputs

    def measure(self, unit: Unit, bench: Bench) -> Record:
        """Search, or go on searching."""
        settings = self._experiment.settings(unit.arm, int(unit.part.removeprefix("seed")))
        work = loop.prepare(settings)
        path = bench.path(unit)
        if (path / "run.json").exists():
            folder = RunFolder.open(path)
        else:
            path.parent.mkdir(exist_ok=True)
            folder = RunFolder.create(path, settings.model_dump(mode="json"))
        with folder:
            result = loop.search(work, folder, bench.observe, bench.stop)
            write_report(folder, settings, result, work.problem.model.card)
        layers = load_model_spec(path / loop.MODEL).layers
        return {
            "accuracy": result.accuracy,
            "limit_ms": result.limit_ms,
            "latency_ms": result.latency_ms,
            "device": work.problem.model.card.device,
            "architecture": result.architecture,
            **size_of(layers, settings.input_size),
            **latencies_ms(layers, settings.input_size, self._experiment.devices),
        }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _against_limits(table: Table, records: Mapping[str, Sequence[Record]]) -> Figure:
    """Accuracy over latency of everything that was searched: a colour for every arm, its limit as a line."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (row, marker) in enumerate(zip(table.rows, cycle("osD^vP"), strict=False)):
        found = records.get(row.arm, ())
        points = [(record["latency_ms"], 100 * record["accuracy"]) for record in found]
        if points:
            colour = f"C{number}"
            axes.plot(*zip(*points, strict=True), marker, color=colour, label=row.arm)
            axes.axvline(found[0]["limit_ms"], color=colour, linestyle="--", linewidth=0.9)
        if "accuracy" in row.paper and "latency_ms" in row.paper:
            axes.plot(row.paper["latency_ms"], 100 * row.paper["accuracy"], "*", color=PAPER, markersize=11)
    axes.set(xlabel="predicted latency, ms (dashed: limit)", ylabel="accuracy, %", xlim=(0, None))
    axes.grid(color="0.92", linewidth=0.7)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure
