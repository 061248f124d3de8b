"""A kind of experiment is one file, which an installed distribution may bring."""

import csv
import json
from pathlib import Path

from tests.cli.command import python, write

KIND = '''
from quadnas.compare.experiment import KINDS, Arm, Experiment, Work
from quadnas.compare.figures import bars, value_panel
from quadnas.compare.table import Column


class LengthArm(Arm):
    word: str


class Measuring(Work):
    def __init__(self, experiment):
        self.arms, self.inputs = experiment.arms, {}

    def measure(self, unit, bench):
        return {"letters": len(self.arms[unit.arm].word)}


@KINDS.register("length")
class Length(Experiment):
    """The length of words."""

    arms: dict[str, LengthArm]

    def prepare(self):
        return Measuring(self)

    def columns(self):
        return (Column("letters", "letters", 0),)

    def draw(self, table, records):
        return bars(table.rows, [value_panel(table, "letters")])
'''
EXPERIMENT = """\
format: quadnas-experiment/1
kind: length
title: Words
arms:
  short: {word: ox, against: {long: long}}
  long: {word: elephant, paper: {letters: 8}}
"""


def test_a_kind_of_a_distribution_is_found_by_name(tmp_path: Path) -> None:
    write(tmp_path / "length_kind.py", KIND)
    installed = tmp_path / "length_kind-1.dist-info"
    installed.mkdir()
    write(installed / "METADATA", "Metadata-Version: 2.1\nName: length-kind\nVersion: 1\n")
    write(installed / "entry_points.txt", "[quadnas.experiments]\nlength = length_kind\n")
    file = write(tmp_path / "words.yaml", EXPERIMENT)
    answer = python(
        "-m", "quadnas.cli", "compare", file, "--out", tmp_path / "run", "--json", PYTHONPATH=str(tmp_path)
    )
    assert answer.code == 0, answer.err
    rows = json.loads(answer.out)["rows"]
    assert rows == [
        {"arm": "short", "letters": 2, "ratios": {"long": 0.25}},
        {"arm": "long", "letters": 8, "paper": {"letters": 8.0}},
    ]
    table = list(csv.DictReader((tmp_path / "run" / "table.csv").read_text().splitlines()))
    assert [row["letters"] for row in table] == ["2", "8"]
    assert (tmp_path / "run" / "picture.png").read_bytes().startswith(b"\x89PNG")
