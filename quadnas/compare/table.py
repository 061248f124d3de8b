"""The table of an experiment: measured values beside the published ones, as CSV, Markdown, LaTeX and text."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quadnas.compare.latex import escaped, floating, tabular

Value = float | int | str | None


@dataclass(frozen=True, slots=True)
class Column:
    """One quantity: ``key`` names it in rows, JSON and ``paper:``; ``title`` carries its unit.

    ``digits`` stand behind the point. A value is multiplied by ``scale`` for reading (a fraction as per cent);
    CSV and JSON hold it as it is.
    """

    key: str
    title: str
    digits: int = 2
    scale: float = 1.0

    def text(self, value: Value) -> str:
        """``value`` for reading; nothing for None."""
        if value is None or isinstance(value, str):
            return value or ""
        return f"{value * self.scale:,.{self.digits}f}"


@dataclass(frozen=True, slots=True)
class Row:
    """One arm: measured values by column key, the paper's, ratios to other arms by title, or why it failed."""

    arm: str
    values: Mapping[str, Value]
    paper: Mapping[str, float] = field(default_factory=dict)
    ratios: Mapping[str, float] = field(default_factory=dict)
    paper_ratios: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; ``notes`` are sentences that belong below, ``more`` are further tables by their names.

    ``title`` stands above it where it is one of those, ``first`` above the names of its rows.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    title: str = ""
    first: str = "arm"
    more: Mapping[str, "Table"] = field(default_factory=dict)

    def grid(self, *, raw: bool = False) -> list[list[str]]:
        """Titles and one line per arm; a paper's column stands only where there is a published value.

        ``raw``: keys, full precision and the reasons of failures, for machines.
        """
        failed = [Column("failure", "failed")] if raw and any(row.failure for row in self.rows) else []
        quantities = [Column("arm", self.first), *self._all_columns(), *failed]
        titles = [column.key if raw else column.title for column in quantities]
        lines = [[_cell(column, row, raw=raw) for column in quantities] for row in self.rows]
        return [titles, *lines]

    def as_csv(self) -> str:
        """Comma-separated, with keys as titles and unrounded values."""
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(self.grid(raw=True))
        return buffer.getvalue()

    def as_markdown(self) -> str:
        """A Markdown table and the notes, and so on for further tables."""
        titles, *lines = ([cell.replace("|", "\\|") for cell in line] for line in self.grid())
        ruled = [titles, ["---", *("---:" for _ in titles[1:])], *lines]
        table = "\n".join(f"| {' | '.join(line)} |" for line in ruled)
        below = [f"## {further.title}\n\n{further.as_markdown()}".rstrip() for further in self.more.values()]
        return "\n\n".join([table, *self.sentences(), *below]) + "\n"

    def as_latex(self, caption: str) -> str:
        """A floating table for a document that uses the package booktabs, one for each further table as well."""
        titles, *lines = ([escaped(cell) for cell in line] for line in self.grid())
        below = [further.as_latex(further.title) for further in self.more.values()]
        notes = [escaped(sentence) for sentence in self.sentences()]
        return "\n".join([floating(escaped(caption), tabular(titles, lines), notes), *below])

    def as_text(self) -> str:
        """For the terminal: aligned columns and the notes, and so on for further tables."""
        grid = self.grid()
        widths = [max(len(line[i]) for line in grid) for i in range(len(grid[0]))]
        lines = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in grid
        ]
        below = [f"\n{further.title}\n{further.as_text()}" for further in self.more.values()]
        return "\n".join(["\n".join(lines), "", *self.sentences(), *below]).rstrip()

    def as_data(self) -> dict[str, list[dict[str, Any]]]:
        """The ``rows`` as plain data, and those of further tables under their names."""
        return {"rows": self.as_records(), **{name: table.as_records() for name, table in self.more.items()}}

    def as_records(self) -> list[dict[str, Any]]:
        """Every row as plain data."""
        return [
            {
                "arm": row.arm,
                **row.values,
                **({"paper": dict(row.paper)} if row.paper else {}),
                **({"ratios": dict(row.ratios)} if row.ratios else {}),
                **({"failure": row.failure} if row.failure else {}),
            }
            for row in self.rows
        ]

    def sentences(self) -> list[str]:
        """Why rows failed, then the notes."""
        return [f"{row.arm} failed: {row.failure}" for row in self.rows if row.failure] + list(self.notes)

    def _all_columns(self) -> list[Column]:
        """The main one, those with a value anywhere (a GPU's have none on a CPU), the paper's, the ratios."""
        found: list[Column] = []
        for number, column in enumerate(self.columns):
            published = any(column.key in row.paper for row in self.rows)
            if not number or published or any(row.values.get(column.key) is not None for row in self.rows):
                found.append(column)
            if published:
                found.append(Column(f"paper:{column.key}", "paper", column.digits, column.scale))
        for title in _titles(row.ratios for row in self.rows):
            found.append(Column(f"ratio:{title}", f"x {title}", 3))
            if any(title in row.paper_ratios for row in self.rows):
                found.append(Column(f"paper_ratio:{title}", "paper", 3))
        return found


def ratios(main: Mapping[str, Value], against: Mapping[str, str], arm: str) -> dict[str, float]:
    """The value of ``arm`` over that of every arm it is held against, by title; left out where one is missing."""
    found = {}
    for title, reference in against.items():
        above, below = main.get(arm), main.get(reference)
        if isinstance(above, int | float) and isinstance(below, int | float) and below:
            found[title] = above / below
    return found


def _titles(mappings: Iterable[Mapping[str, float]]) -> Sequence[str]:
    return list(dict.fromkeys(title for mapping in mappings for title in mapping))


def _cell(column: Column, row: Row, *, raw: bool) -> str:
    kind, _, name = column.key.partition(":")
    value: Value
    match kind:
        case "arm":
            return row.arm
        case "failure":
            return row.failure
        case "paper":
            value = row.paper.get(name)
            if value is not None and not raw:  # no more digits than were published
                return column.text(value).rstrip("0").rstrip(".") if column.digits else column.text(value)
        case "ratio":
            value = row.ratios.get(name)
        case "paper_ratio":
            value = row.paper_ratios.get(name)
        case _:
            value = row.values.get(column.key)
    if raw:
        return "" if value is None else str(value)
    return column.text(value)
