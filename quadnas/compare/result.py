"""What a finished experiment leaves in its run folder: results, table, picture, page."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from quadnas import report
from quadnas.compare.engine import Outcome
from quadnas.compare.experiment import ARMS, Experiment, Record
from quadnas.compare.table import Table
from quadnas.run.folder import RunFolder

TABLE_CSV, TABLE_MD, TABLE_TEX = "table.csv", "table.md", "table.tex"
PICTURE, PAGE, RESULTS = "picture.png", "report.html", "results.json"
_DPI = 150


@dataclass(frozen=True, slots=True)
class Written:
    """The files of a finished experiment."""

    table: Path
    picture: Path
    page: Path


def write_outcome(experiment: Experiment, outcome: Outcome, folder: RunFolder, machine: str) -> Written:
    """Write results.json, table.csv, .md and .tex, picture.png and report.html into the locked folder.

    A further table has a NAME.csv of its own and stands below the first in all other files. The same records
    always give the same tables. Raises MachineError (disk).
    """
    table = outcome.table
    records = experiment.by_arm(outcome.records)
    units = {str(unit): record for unit, record in outcome.records.items()}
    folder.write(RESULTS, json.dumps({"machine": machine, "units": units}, indent=1))
    folder.write(TABLE_CSV, table.as_csv())
    for name, further in table.more.items():
        folder.write(f"{name}.csv", further.as_csv())
    folder.write(TABLE_TEX, table.as_latex(experiment.title))
    folder.write(TABLE_MD, f"# {experiment.title}\n\n{table.as_markdown()}\n{experiment.source}\n")
    picture = _png(experiment, table, records)
    reports = {unit: report for unit in units if (folder.path / (report := f"{ARMS}/{unit}/{PAGE}")).exists()}
    return Written(
        table=folder.path / TABLE_CSV,
        picture=folder.write(PICTURE, picture),
        page=folder.write(PAGE, render_page(experiment, table, picture, machine, reports)),
    )


def render_page(
    experiment: Experiment, table: Table, picture: bytes, machine: str, reports: Mapping[str, str]
) -> str:
    """The experiment as one self-contained HTML page: no script, nothing fetched, light and dark.

    ``reports``: unit -> the path of its own page, from this one.
    """
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, *map(Path, report.__path__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("experiment.html").render(
        experiment=experiment,
        table=table,
        reports=reports,
        failures=[row for row in table.rows if row.failure],
        picture=base64.b64encode(picture).decode(),
        settings=yaml.safe_dump(
            experiment.model_dump(mode="json", exclude_defaults=True), sort_keys=False, width=110
        ),
        machine=machine,
    )


def _png(experiment: Experiment, table: Table, records: Mapping[str, Sequence[Record]]) -> bytes:
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        found = {arm: rows for arm, rows in records.items() if rows}
        figure = experiment.draw(table, found) if found else Figure()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
