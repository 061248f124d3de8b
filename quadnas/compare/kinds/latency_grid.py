"""What networks of several widths and depths cost: parameters, multiply-accumulates, latency on devices."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from matplotlib.figure import Figure
from pydantic import Field

from quadnas.compare.experiment import KINDS, Bench, Record, Unit, Work
from quadnas.compare.figures import number_of, panel_grid
from quadnas.compare.networks import (
    NetworkExperiment,
    cost_columns,
    fingerprint,
    latencies_ms,
    require_devices,
    size_of,
    unpriced_note,
)
from quadnas.compare.table import Column, Table
from quadnas.errors import ConfigError


@KINDS.register("latency-grid")
class LatencyGrid(NetworkExperiment):
    """Predicted at ``input_size`` on ``devices``; nothing is trained or run."""

    devices: Annotated[tuple[str, ...], Field(min_length=1)]

    def prepare(self) -> "GridWork":
        """Lay out every network and load every device."""
        return GridWork(self)

    def columns(self) -> tuple[Column, ...]:
        """The costs, latencies first."""
        parameters, macs, *latencies = cost_columns(self.devices, self.input_size)
        return (
            *latencies,
            parameters,
            macs,
            Column("channels", "channels", 0),
            Column("layers", "layers", 0),
        )

    def notes(self, records: Mapping[str, Sequence[Record]]) -> tuple[str, ...]:
        """What has no price."""
        return unpriced_note({arm: rows[0] for arm, rows in records.items()}, self.devices)

    def draw(self, table: Table, records: Mapping[str, Sequence[Record]]) -> Figure:
        """Every cost over the number of layers, a line for every width."""
        shown = table.columns[: len(self.devices) + 2]
        return _lines(table, shown, across="layers", lines="channels")


class GridWork(Work):
    """The networks."""

    def __init__(self, experiment: LatencyGrid) -> None:
        self._experiment = experiment
        self._specs = experiment.specs()
        require_devices(experiment.devices)
        self.inputs: Mapping[str, object] = fingerprint(self._specs)

    def measure(self, unit: Unit, bench: Bench) -> Record:
        """Price one network; its width is that of the first block, its layers are those that keep their map."""
        layers, size = self._specs[unit.arm].layers, self._experiment.input_size
        blocks = [layer for layer in layers if layer.stride == 1 and layer.channels_in == layer.channels_out]
        if not blocks:
            raise ConfigError(
                f"arms.{unit.arm}: every layer changes its map, so there is no width to compare"
            )
        return {
            "channels": blocks[0].channels_in,
            "layers": len(blocks),
            **size_of(layers, size),
            **latencies_ms(layers, size, self._experiment.devices),
        }


def _lines(table: Table, shown: Sequence[Column], *, across: str, lines: str) -> Figure:
    """A panel for every column in ``shown``: its value over the column ``across``, a line for every ``lines``."""
    figure, panels = panel_grid(len(shown), 2.9)
    titles = {column.key: column.title for column in table.columns}
    groups = sorted({value for row in table.rows if (value := number_of(row.values.get(lines))) is not None})
    for axes, column in zip(panels, shown, strict=True):
        for number, group in enumerate(groups):
            found = sorted(
                (x, y * column.scale)
                for row in table.rows
                if row.values.get(lines) == group
                and (x := number_of(row.values.get(across))) is not None
                and (y := number_of(row.values.get(column.key))) is not None
            )
            label = f"{group:g} {titles[lines]}"
            style: dict[str, Any] = {
                "color": f"C{number}",
                "marker": "osD^v"[number % 5],
                "markersize": 4,
                "label": label,
            }
            axes.plot([x for x, _ in found], [y for _, y in found], **style)
        axes.set(xlabel=titles[across], ylabel=column.title, xlim=(0, None), ylim=(0, None))
        axes.grid(color="0.92", linewidth=0.7)
        axes.set_axisbelow(True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(groups), frameon=False)
    return figure
