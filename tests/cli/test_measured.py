"""What a user's own measurements do to every later answer."""

import json
from pathlib import Path

import pytest
import yaml

from quadnas.errors import Interrupted
from quadnas.run.events import Event, WeightStep
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.search.loop import search
from quadnas.search.settings import SearchSettings
from quadnas.search.work import prepare
from tests.cli.command import TINY_SEARCH, quadnas, write
from tests.cli.conftest import Found


@pytest.fixture(autouse=True)
def home(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUADNAS_HOME", str(place / "home"))
    return place / "home"


def measure(model: Path, latency: str, size: int) -> dict[str, object]:
    answer = quadnas(
        "latency", model, "--device", "cortexA76", "--input-size", size, "--measured", latency, "--json"
    )
    return dict(answer.json["measured"])


def predicted_ms(model: Path, size: int) -> float:
    return float(
        quadnas("latency", model, "--device", "cortexA76", "--input-size", size, "--json").json["latency_ms"]
    )


def test_predictions_are_scaled_from_the_second_measured_model_on(
    place: Path, found: Found, home: Path
) -> None:
    model = found.run / "model.yaml"
    raw_ms = {size: predicted_ms(model, size) for size in (96, 128, 160)}
    first = measure(model, f"{raw_ms[96] * 1.5:.6f}ms", 96)
    assert first == {
        "latency_ms": pytest.approx(raw_ms[96] * 1.5), "residual": pytest.approx(0.5, abs=1e-5), "inside": False,
        "scale": {"factor": 1.0, "models": 0},
    }  # fmt: skip
    assert predicted_ms(model, 96) == raw_ms[96]
    second = measure(model, f"{raw_ms[128] * 1.3:.6f}ms", 128)
    assert second["scale"] == {"factor": pytest.approx(1.4, abs=1e-5), "models": 2}
    assert predicted_ms(model, 160) == pytest.approx(1.4 * raw_ms[160], rel=1e-5)
    text = quadnas("latency", model, "--device", "cortexA76", "--input-size", 160).out
    assert text.endswith("\nscaled by 1.4 from your measurements of 2 models\n")
    shown = quadnas("spaces", "show", found.space, "--device", "cortexA76", "--input-size", 64).out
    assert shown.endswith("\ncortexA76: scaled by 1.4 from your measurements of 2 models\n")
    assert [path.name for path in sorted((home / "measurements").iterdir())] == [
        "cortexA76.jsonl",
        "cortexA76.lock",
    ]
    sayings = quadnas(
        "latency",
        model,
        "--device",
        "cortexA76",
        "--input-size",
        160,
        "--measured",
        f"{1.4 * raw_ms[160]:.6f}ms",
    ).out
    for saying in ("0.0% ", "inside its 90 % interval", "from your measurements of 3 models"):
        assert saying in sayings


@pytest.mark.parametrize("latency", ["-3ms", "0ms", "nan", "287", "287 ms", "fast"])
def test_a_measurement_without_a_positive_number_and_its_unit_is_refused(
    found: Found, home: Path, latency: str
) -> None:
    answer = quadnas("latency", found.run / "model.yaml", "--device", "cortexA76", f"--measured={latency}")
    answer.refused(2, repr(latency), "us, ms, s")
    assert not home.exists()


def test_a_run_goes_on_only_with_the_scale_it_started_with(place: Path, found: Found, home: Path) -> None:
    given = {**yaml.safe_load(TINY_SEARCH), "space": str(found.space)}
    settings = SearchSettings.model_validate_json(json.dumps(given))
    stop = StopFlag()

    def stop_soon(event: Event) -> None:
        if isinstance(event, WeightStep):
            stop.signal = 15

    with (
        RunFolder.create(place / "run", settings.model_dump(mode="json")) as folder,
        pytest.raises(Interrupted),
    ):
        search(prepare(settings), folder, stop_soon, stop)
    model = found.run / "model.yaml"
    measure(model, "1ms", 96)
    quadnas("latency", model, "--device", "cortexA76", "--input-size", 96)
    measure(model, "1ms", 128)
    quadnas("search", "--resume", place / "run").refused(
        2, "scale from your measurements of the device changed", "start a new run"
    )
    journal = home / "measurements" / "cortexA76.jsonl"
    write(journal, journal.read_text().splitlines()[0] + "\n")  # what the message says: restored
    assert quadnas("search", "--resume", place / "run", "--json").code == 0


def test_the_result_of_a_search_says_that_it_was_scaled(place: Path, found: Found) -> None:
    model = found.run / "model.yaml"
    for size in (96, 128):
        measure(model, f"{predicted_ms(model, size) * 0.8:.6f}ms", size)
    answer = quadnas("search", "--config", found.config, "--out", "run", "--retrain-epochs", "0")
    assert answer.code == 0, answer.err
    assert "\nscale     scaled by 0.8 from your measurements of 2 models\n" in answer.out
    result = json.loads((place / "run" / "result.json").read_text())
    assert result["scale"] == "scaled by 0.8 from your measurements of 2 models"
    interval = result["interval_ms"]
    assert interval["low"] < result["latency_ms"] < interval["high"] and interval["confidence"] == 0.9
    assert "scaled by 0.8" in (place / "run" / "report.html").read_text()
