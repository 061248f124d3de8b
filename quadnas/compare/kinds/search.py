"""Searches side by side, beside networks that are given: what each finds under its limit, over several seeds."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure
from pydantic import Field, model_validator

from quadnas.compare.evidence import SearchTimer, bound_text, limit_bound
from quadnas.compare.experiment import KINDS, Arm, ArmName, Bench, Experiment, Record, Seeds, Unit, Work
from quadnas.compare.figures import Cloud, draw_clouds, draw_differences
from quadnas.compare.grid import with_grid_arms
from quadnas.compare.networks import cost_columns, latencies_ms, latency_key, require_devices, size_of
from quadnas.compare.pairs import Samples, paired_table
from quadnas.compare.statistics import mean_interval
from quadnas.compare.table import Column, Row, Table, Value
from quadnas.config import overlaid, validated
from quadnas.data.base import load_data
from quadnas.errors import ConfigError
from quadnas.registry import did_you_mean
from quadnas.report.page import write_report
from quadnas.run.folder import RunFolder
from quadnas.search import loop
from quadnas.search.derivation import model_spec
from quadnas.search.front import MODEL
from quadnas.search.problem import Problem
from quadnas.search.settings import SearchSettings
from quadnas.search.work import prepare
from quadnas.space.architecture import Architecture
from quadnas.space.model_family import find_model
from quadnas.space.model_spec import ModelSpec, load_model_spec
from quadnas.training import standalone
from quadnas.training.device import arithmetic, compute_device
from quadnas.training.standalone import TrainSettings, train_network, with_classes_of

_TRAINED_ALIKE = (SearchSettings.model_fields.keys() & TrainSettings.model_fields.keys()) - {"seed"}


class SearchArm(Arm):
    """``search``: the settings of ``quadnas search`` in which this arm differs from the experiment's.

    ``model`` is a network that is not searched but given, by name or file, and trained like those that are found.
    ``against``: title -> the arm whose accuracy is taken off this one's, seed by seed.
    """

    search: dict[str, Any] = Field(default_factory=dict)
    model: str | None = None


@KINDS.register("search")
class Search(Experiment):
    """Every arm searches with every seed, as ``quadnas search --config`` does it.

    ``grid``: axes whose crossings are arms (see ``with_grid_arms``), so it is empty once it was read.
    ``training``: settings of ``quadnas train``; every network, found or given, is then trained from scratch with
    them, and where they say nothing else with the data and recipe of its search.
    ``devices``: every network is predicted on these too, whichever it was found for.
    """

    arms: Mapping[ArmName, SearchArm]
    grid: tuple[Mapping[ArmName, dict[str, Any]], ...] = ()
    search: dict[str, Any]
    training: dict[str, Any] | None = None
    seeds: Seeds = (0,)
    devices: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _crossed(cls, data: Any) -> Any:
        return with_grid_arms(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _given_networks_are_trained(self) -> "Search":
        for name, arm in self.arms.items():
            if arm.model is not None and (arm.search or self.training is None):
                raise ValueError(
                    f"arms.{name}.model: a given network is not searched, so it has no 'search', and is trained "
                    "as 'training' says: give 'training: {epochs: ...}'"
                )
        return self

    def settings(self, arm: str, seed: int) -> SearchSettings:
        """The settings of one search; with ``training`` it retrains nothing itself. Raises ConfigError."""
        below = {"schedule": {"retrain_epochs": 0}} if self.training is not None else {}
        merged = overlaid(overlaid(below, self.search), self.arms[arm].search)
        return validated({**merged, "seed": seed}, SearchSettings, f"arms.{arm}.search")

    def train_settings(self, arm: str, seed: int, spec: ModelSpec) -> TrainSettings:
        """The settings of the training of an arm's network; raises ConfigError."""
        own = self.training or {}
        for key in own:
            if key not in (allowed := {*_TRAINED_ALIKE, "epochs"}):
                raise ConfigError(f"training: unknown key {key!r}; {did_you_mean(key, allowed)}")
        searched = overlaid(self.search, self.arms[arm].search)
        alike = {key: value for key, value in searched.items() if key in _TRAINED_ALIKE}
        return validated({**overlaid(alike, own), "model": spec, "seed": seed}, TrainSettings, "training")

    def input_size(self, arm: str) -> int:
        """The side in pixels at which an arm's network is to be deployed."""
        default = SearchSettings.model_fields["input_size"].default
        return int(overlaid(self.search, self.arms[arm].search).get("input_size", default))

    def prepare(self) -> "SearchWork":
        """Check every search and training: space, device, limit, data, network."""
        return SearchWork(self)

    def units(self) -> tuple[Unit, ...]:
        """Seed by seed."""
        return tuple(Unit(arm, f"seed{seed}") for seed in self.seeds for arm in self.arms)

    def columns(self) -> tuple[Column, ...]:
        """Accuracy first."""
        repeated = len(self.seeds) > 1
        return (
            Column("accuracy", "accuracy, %", 2, 100),
            *([Column("half", "+- (95 %)", 2, 100), Column("seeds", "seeds", 0)] if repeated else []),
            Column("device", "searched for"),
            Column("limit_ms", "limit, ms", 2),
            Column("beside", "and"),
            Column("latency_ms", "latency, ms", 2),
            Column("binding", "limit bound"),
            *cost_columns(self.devices, max(map(self.input_size, self.arms))),
            Column("search_s", "search, s", 0),
            Column("search_cpu_s", "search, s of CPU", 0),
        )

    def row(self, arm: str, records: Sequence[Record]) -> dict[str, Value]:
        """Over the seeds; the latency is the highest, for the limit must hold for all."""
        accuracy = mean_interval([record["accuracy"] for record in records])
        means = ("parameters", "macs", "search_s", "search_cpu_s", *map(latency_key, self.devices))
        first = records[0]
        return {
            "accuracy": accuracy.value,
            "half": accuracy.half,
            "seeds": accuracy.count,
            "device": first["device"],
            "limit_ms": first["limit_ms"],
            "beside": _beside(records),
            "latency_ms": max(
                (record["latency_ms"] for record in records if record["limits_ms"]), default=None
            ),
            "binding": bound_text([record["binding"] for record in records]),
            **{key: _mean([record[key] for record in records]) for key in means},
        }

    def table(self, records: Mapping[Unit, Record], failures: Mapping[Unit, str]) -> Table:
        """The arms, and their paired differences instead of ratios."""
        table = super().table(records, failures)
        rows = tuple(replace(row, ratios={}, paper_ratios={}) for row in table.rows)
        pairs = paired_table(self._samples(self.by_arm(records)), self.pairs())
        return replace(table, rows=rows, more={"pairs": pairs} if pairs else {})

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """What is held against what: as ``against`` says, or where no arm says it, all against all."""
        named = [(arm, rival) for arm, own in self.arms.items() for rival in own.against.values()]
        arms = list(self.arms)
        return tuple(named or ((arm, before) for i, arm in enumerate(arms) for before in arms[:i]))

    def notes(self, records: Mapping[str, Sequence[Record]]) -> tuple[str, ...]:
        """What the columns mean."""
        trained = ", then trained from scratch" if self.training is not None else ""
        size = len(self.seeds)
        spread = (
            f"Accuracy: mean over {size} seeds, each of which is searched anew{trained}; 95 % by Student's t. "
            "Latencies and sizes beside their limits are the highest of them, all else are means."
            if size > 1
            else f"One seed for everything{trained}: accuracies have no interval."
        )
        bound = (
            "A limit bound if the best network of the space by the scores of the search is above it (of random "
            "search and evolution: by what their comparisons tell of every candidate, added up); a latency term "
            "in a loss or reward has its part in the scores; 'all fit': every network of the space is within it; "
            "'not known': candidates that could never be compared might be better."
        )
        return (spread, bound)

    def draw(self, table: Table, records: Mapping[str, Sequence[Record]]) -> Figure:
        """Accuracy over latency with the limits, device by device, and below the paired differences."""
        pairs, devices = table.more.get("pairs"), self.devices or ("",)
        heights = [4.2, *([0.8 + 0.42 * len(pairs.rows)] if pairs else [])]
        figure = Figure(figsize=(1 + 4.6 * len(devices), sum(heights) + 0.8), layout="constrained")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        panels = parts[0].subplots(1, len(devices), sharey=True, squeeze=False)[0]
        titles = {column.key: column.title for column in table.columns}
        for axes, device in zip(panels, devices, strict=True):
            key = latency_key(device) if device else "latency_ms"
            clouds = [_cloud(row, records.get(row.arm, ()), key, device) for row in table.rows]
            draw_clouds(axes, clouds, f"{titles[key]} (dashed: limits)")
        parts[0].legend(*_handles(panels), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
        if pairs:
            draw_differences(parts[1].subplots(), pairs)
        return figure

    def _samples(self, records: Mapping[str, Sequence[Record]]) -> Samples:
        return {arm: {row["seed"]: row["accuracy"] for row in rows} for arm, rows in records.items()}


class SearchWork(Work):
    """Searches and trainings in run folders of their own; ``given`` networks have the classes of the data."""

    def __init__(self, experiment: Search) -> None:
        self._experiment = experiment
        require_devices(experiment.devices)
        self._given: dict[str, ModelSpec] = {}
        checked = experiment.for_each_arm(self._check)
        self.inputs: Mapping[str, object] = {
            f"{name} of {arm}": value for arm, found in checked.items() for name, value in found.items()
        }

    def measure(self, unit: Unit, bench: Bench) -> Record:
        """Search and train, or go on with it."""
        experiment, seed, path = self._experiment, int(unit.part.removeprefix("seed")), bench.path(unit)
        if unit.arm in self._given:
            record, spec, trained_in = _NOT_SEARCHED, self._given[unit.arm], path
        else:
            record = self._search(unit.arm, seed, path, bench)
            spec, trained_in = load_model_spec(path / MODEL), path / _TRAINING
        if experiment.training is not None:
            record = {**record, "accuracy": self._train(unit.arm, seed, spec, trained_in, bench)}
        size = experiment.input_size(unit.arm)
        costs = {**size_of(spec.layers, size), **latencies_ms(spec.layers, size, experiment.devices)}
        return {"seed": seed, **record, **costs}

    def _check(self, arm: str) -> Mapping[str, object]:
        """Load and check what an arm needs; returns its inputs. Raises what ``prepare`` raises."""
        model = self._experiment.arms[arm].model
        if model is not None:
            return self._check_given(arm, model)
        work = prepare(self._experiment.settings(arm, self._experiment.seeds[0]))
        if self._experiment.training is not None:
            any_choices = [0] * len(work.problem.space.slots)
            self._check_training(arm, model_spec(work.problem, work.data, any_choices, work.train_size))
        return work.inputs

    def _check_given(self, arm: str, model: str) -> Mapping[str, object]:
        spec = find_model(model)
        settings = self._experiment.train_settings(arm, self._experiment.seeds[0], spec)
        spec = with_classes_of(spec, load_data(settings.data, limit=settings.train_images))
        self._given[arm] = spec
        identity = self._check_training(arm, spec)
        return {"model": spec.layers, "data": identity, **arithmetic(compute_device())}

    def _check_training(self, arm: str, spec: ModelSpec) -> object:
        """What tells the data of a training apart; raises ConfigError, DataError."""
        _, data, _ = standalone.prepare(self._experiment.train_settings(arm, self._experiment.seeds[0], spec))
        return data.identity

    def _search(self, arm: str, seed: int, path: Path, bench: Bench) -> Record:
        settings = self._experiment.settings(arm, seed)
        work = prepare(settings)
        known = RunFolder.exists(path)
        folder = RunFolder.open(path) if known else RunFolder.create(path, settings.model_dump(mode="json"))
        wall = SearchTimer(bench.observe, bench.clock, bench.clock())
        cpu = SearchTimer(wall, time.process_time, time.process_time())
        with folder:
            result = loop.search(work, folder, cpu, bench.stop)
            write_report(folder, settings, result, work.problem.model.card)
        problem = work.problem
        choices = problem.space.choices(Architecture.parse(result.architecture))
        return {
            "accuracy": result.accuracy,
            "limit_ms": settings.max_latency_ms,
            "beside": _told_beside(problem, choices),
            "latency_ms": problem.estimate(choices).latency_ms,
            "limits_ms": {limit.device: limit.max_latency_ms for limit in settings.latency_limits},
            "device": problem.model.card.device,
            "binding": limit_bound(folder.journal.read(), problem),
            "architecture": result.architecture,
            # of a search that went on, only the end was timed
            "search_s": None if known or bench.shared else wall.seconds,
            "search_cpu_s": None if known else cpu.seconds,
        }

    def _train(self, arm: str, seed: int, spec: ModelSpec, path: Path, bench: Bench) -> float:
        """Train from scratch, or go on with it; the accuracy on the test split."""
        known = RunFolder.exists(path)
        settings = self._experiment.train_settings(arm, seed, spec)
        with RunFolder.open(path) if known else standalone.new_run(settings, path) as folder:
            return train_network(folder, bench.observe, bench.stop).accuracy


_TRAINING = "training"
"""The folder, within that of a search, in which what it found is trained from scratch."""

_NOT_SEARCHED: Record = dict.fromkeys(
    (
        "limit_ms",
        "beside",
        "latency_ms",
        "limits_ms",
        "device",
        "binding",
        "architecture",
        "search_s",
        "search_cpu_s",
    )
)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _cloud(row: Row, records: Sequence[Record], key: str, device: str) -> Cloud:
    """An arm on the axis of ``key``; its limit on that ``device`` stands there, on no device its first."""
    points = [(found[key], found["accuracy"]) for found in records if found[key] is not None]
    published = [(row.paper[key], row.paper["accuracy"])] if {key, "accuracy"} <= row.paper.keys() else []
    limits_ms = (records[0]["limits_ms"] if records else None) or {}
    here = (
        list(limits_ms.values())[:1] if device == "" else [limits_ms[device]] if device in limits_ms else []
    )
    return Cloud(row.arm, points, published, here)


def _told_beside(problem: Problem, choices: Sequence[int]) -> dict[str, float]:
    """Every limit beside the first one in words -> what the network takes of it, a latency as predicted."""
    devices = zip(problem.limits[1:], problem.models[1:], strict=False)
    sizes = problem.limits[len(problem.models) :]
    return {
        **{
            limit.text(limit.value): problem.estimate(choices, model).latency_ms or 0.0
            for limit, model in devices
        },
        **{limit.text(limit.value): round(limit.whole(choices)) for limit in sizes},
    }


def _beside(records: Sequence[Record]) -> str | None:
    """Each limit behind the highest value over the searches: ``28.4 of 30 ms on myriadvpu``; None without one."""
    limits = records[0]["beside"] or {}
    highest = {limit: max(record["beside"][limit] for record in records) for limit in limits}
    return (
        ", ".join(
            f"{value:,} of {limit}" if isinstance(value, int) else f"{value:.4g} of {limit}"
            for limit, value in highest.items()
        )
        or None
    )


def _handles(panels: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Every arm once, whichever panel shows it."""
    found = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    return list(found.values()), list(found)
