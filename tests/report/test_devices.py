"""The list of devices, one device's card for people, and the picture of its error."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from quadnas.config import validated
from quadnas.latency.card import DeviceCard, write_card
from quadnas.latency.devices import available_devices, find_device
from quadnas.report import devices, scatter
from quadnas.testing.toy_device import ARRAYS, card
from tests.cli.command import python, quadnas

FILE = "coefficients.safetensors"


def written(folder: Path, **changes: Any) -> DeviceCard:
    folder.mkdir(parents=True)
    data = safetensors.numpy.save(ARRAYS)
    (folder / FILE).write_bytes(data)
    toy = card(**{"arrays": {FILE: hashlib.sha256(data).hexdigest()}, **changes})
    (folder / "card.yaml").write_bytes(write_card(toy))
    return toy


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUADNAS_HOME", str(tmp_path))
    return tmp_path / "latency_predictors"


def measured(path: Path, rows: list[tuple[str, int, float]]) -> Path:
    """Networks of one 1x1 convolution: (family, output channels, ms)."""
    lines = [
        {"id": f"{n}", "family": family, "latency_ms": {"toy": ms}, "kernels": [["conv", 7, 8, cout, 1, 1]]}
        for n, (family, cout, ms) in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def toy_ms(cout: int) -> float:
    """Floor of 1 us and 1 GMAC/s or 1 GB/s, 2e-6 ms a multiplication and 0.5 ms a call; batch 2."""
    macs = 2 * 49 * 8 * cout
    moved = 4 * (2 * 49 * (8 + cout) + 8 * cout)
    return 1e-3 + max(macs, moved) / 1e6 + 2e-6 * macs + 0.5


def test_the_list_says_what_each_card_says() -> None:
    rows, text = devices.list_devices()
    assert set(rows) == set(available_devices()) >= {"cortexA76", "myriadvpu", "a100"}
    for name, row in rows.items():
        _, found = find_device(name)
        assert found.held_out
        assert (row["source"], row["batch"], row["precision"]) == (found.source, found.batch, found.precision)
        assert (row["licence"], row["runtime"]) == (found.licence, found.runtime)
        assert (row["models"], row["within_10"]) == (found.held_out.models, found.held_out.within_10)
        line, about = (text.splitlines()[i + n] for i in [_line(text, name)] for n in (0, 1))
        assert f"{found.held_out.within_10:.1%}" in line and found.source in line
        for part in (found.description, found.runtime, found.licence):
            assert part in about


def _line(text: str, name: str) -> int:
    return next(n for n, line in enumerate(text.splitlines()) if line.split(" ")[0] == name)


def test_a_damaged_device_stands_in_the_list_with_its_reason(home: Path) -> None:
    written(home / "mine")
    path = home / "mine" / "card.yaml"
    path.write_bytes(path.read_bytes().replace(b"toy", b"toi", 1))
    answer = quadnas("devices", "--json").json
    assert "does not match its checksum" in answer["mine"]["error"]
    assert answer["cortexA76"]["checked"]
    quadnas("devices", "show", "mine").refused(4, "does not match its checksum")


def test_an_unchecked_device_is_listed_and_shown_as_such(home: Path) -> None:
    written(home / "mine", held_out=None, error_quantiles=None)
    assert "unchecked" in devices.list_devices()[1]
    answer, text = devices.show_device("mine")
    assert answer["held_out"] is None
    assert "not checked on measured networks here" in text and "evaluate --data FILE" in text


def test_the_card_is_shown_whole(home: Path) -> None:
    conv = {"h": [7, 14], "cin": [8, 64], "cout": [8, 32], "kernels": [1, 3], "strides": [1, 2]}
    transferred = {**conv, "basis": "transferred", "source": "another card", "error": 0.25, "batches": [1, 8]}
    toy = written(
        home / "mine",
        sampled={"conv": [conv, {**transferred, "kernels": [5, 7]}], "add": [conv], "fc": [conv]},
        families_left_out=[
            {"family": "vgg", "models": 12, "within_5": 0.5, "within_10": 0.75, "bias": -0.031, "exact": 0.9,
             "interval_90": 0.87}
        ],
        winners={"space": "quadranet", "searches": 40, "bias": 1.012, "surrogate_bias": 1.034,
                 "quantiles": [[0.05, 1.0], [0.5, 1.01], [0.95, 1.05]]},
        rerun={"space": "quadranet_s", "input_size": 160, "repeated": 50, "repeated_within_5": 0.98,
               "repeated_within_10": 1.0, "winners": 20, "winners_within": 0.95, "confidence": 0.9,
               "disturbed": 0.031},
    )  # fmt: skip
    answer, text = devices.show_device("mine")
    assert validated(json.loads(json.dumps(answer)), DeviceCard, "answer") == toy
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        "toy: a device to compute by hand",
        "none; fp32; batch 2 (1 to 4); measured at batch 2",
        "fused: conv + bn, bn + relu",
        "conv measured 7-14 8-64 8-32 1 1,3; 1,2",
        "transferred 7-14 8-64 8-32 1-8 5,7; 1,2",
        "from another card, error 25%",
        "mul 3 x add, error 10%: made up",
        "a shape outside these ranges is extrapolated, error 20%",
        "vgg 12 50.0% 75.0% -3.1% 90.0% 87.0%",
        "searched networks: 1.2% slower than predicted on average, 3.4% with stand-ins (40 searches of quadranet)",
    ):
        assert line in lines, line
    assert "of 20 searched networks 95.0% kept their limit at confidence 0.9" in " ".join(text.split())
    assert "error on 10 held-out networks: 90.0% 100.0% 100.0%" in text
    assert all(len(line) <= 125 for line in text.splitlines())


def test_the_quantiles_are_drawn_to_scale() -> None:
    lines = list(devices._quantile_plot(((0.05, 0.8), (0.5, 1.0), (0.9, 1.1), (0.95, 1.2))))
    columns = [line.index("o") for line in lines[:-1]]
    middle = columns[1]
    assert [column - middle for column in columns] == [-30, 0, 15, 30]
    assert [line.index("|") for line in (lines[0], lines[2])] == [middle, middle]
    assert lines[2].split()[:2] == ["90.0%", "1.100"]
    assert lines[-1].split() == ["0.80", "1", "1.20"]


def test_figures_and_picture_of_measured_networks(home: Path, tmp_path: Path) -> None:
    written(home / "mine", held_out=None, error_quantiles=None)
    rows = [("a", cout, toy_ms(cout) / 1.04) for cout in range(8, 20)]
    rows += [("b", cout, toy_ms(cout) / 1.2) for cout in range(20, 24)]
    data, picture = measured(tmp_path / "m.jsonl", rows), tmp_path / "m.png"
    answer = quadnas("devices", "show", "mine", "--data", data, "--plot", picture, "--json").json
    assert answer["checked"]["models"] == 16
    assert (answer["checked"]["within_5"], answer["checked"]["within_10"]) == (0.75, 0.75)
    assert {name: row["within_10"] for name, row in answer["checked"]["families"].items()} == {
        "a": 1.0,
        "b": 0.0,
    }
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:])
    assert width > 600 and height > 800


def test_the_points_lie_where_they_were_measured_and_predicted(home: Path, tmp_path: Path) -> None:
    written(home / "mine", held_out=None, error_quantiles=None)
    rows = [(f"family{cout}", cout, toy_ms(cout) * (0.9 + cout / 100)) for cout in range(8, 28)]
    errors = scatter.check_device("mine", measured(tmp_path / "m.jsonl", rows))
    figure = scatter._figure(errors)
    totals, ratios = figure.axes
    drawn = {
        str(line.get_label()).split(" ")[0]: line for line in totals.lines if "(" in str(line.get_label())
    }
    assert len(drawn) == 20
    for family, cout, ms in rows:
        x, y = (np.asarray(values) for values in drawn[family].get_data())
        assert x == pytest.approx([ms]) and y == pytest.approx([toy_ms(cout)])
    styles = {(str(line.get_color()), str(line.get_marker())) for line in drawn.values()}
    assert len(styles) == 20
    assert (totals.get_xscale(), totals.get_yscale()) == ("log", "log")
    low, high = ratios.get_ylim()
    assert low < min(1 / (0.9 + c / 100) for c in range(8, 28)) and high > 1.02


def test_a_fitted_device_is_drawn_on_held_out_networks_only(home: Path, tmp_path: Path) -> None:
    """Roughly a fifth of many; of a single one that is not held out, nothing."""
    written(home / "mine")
    rows = [("a", cout, toy_ms(cout)) for cout in range(8, 60)]
    errors = scatter.check_device("mine", measured(tmp_path / "m.jsonl", rows))
    held = set(errors.measured_ms.tolist())
    assert 3 <= len(held) <= 20
    fitted_to = next(row for row in rows if row[2] not in held)
    few = measured(tmp_path / "few.jsonl", [fitted_to])
    quadnas("devices", "show", "mine", "--data", few).refused(2, "held-out fifth")


def test_networks_without_a_total_are_said_and_not_drawn(home: Path, tmp_path: Path) -> None:
    written(home / "mine", held_out=None, error_quantiles=None)
    line = {"id": "x", "family": "f", "latency_ms": {"toy": 1.0}, "kernels": [["softmax", 7, 8, 8, 1, 1]]}
    (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n")
    answer, text = scatter.check_and_draw("mine", tmp_path / "m.jsonl", tmp_path / "m.svg")
    assert answer["uncovered_models"] == 1
    assert "1 without a total" in text
    assert (tmp_path / "m.svg").read_bytes().startswith(b"<?xml")


def test_bad_input(home: Path, tmp_path: Path) -> None:
    written(home / "mine")
    quadnas("devices", "show", "cortexA77").refused(2, "did you mean 'cortexA76'")
    quadnas("devices", "show", "mine", "--plot", "x.png").refused(2, "--data FILE")
    data = measured(tmp_path / "m.jsonl", [("a", 8, 1.0)])
    quadnas("devices", "show", "mine", "--data", data, "--plot", "x.gif").refused(2, ".png, .svg, .pdf")
    quadnas("devices", "show", "mine", "--data", tmp_path / "none").refused(2, "no file")
    quadnas("devices", "show", "cortexA76", "--data", data).refused(2, "no network has a latency 'cortexA76'")


def test_listing_needs_no_torch_and_no_arrays(home: Path) -> None:
    written(home / "mine")
    (home / "mine" / FILE).unlink()
    code = (
        "import sys; from quadnas.report.devices import list_devices; found = list_devices()[0]; "
        "sys.exit(not found['mine']['checked'] or 'torch' in sys.modules)"
    )
    assert python("-c", code).code == 0
