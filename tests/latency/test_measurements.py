"""The user's own measurements: what is kept of them, and the scale that follows."""

import hashlib
import json
import sys
from pathlib import Path
from subprocess import Popen

import pytest
import safetensors.numpy

from quadnas.errors import ConfigError, CoverageError, DataError
from quadnas.latency.card import write_card
from quadnas.latency.kernels import Kernel
from quadnas.latency.measurements import Measured, Scaled, load_corrected, record, scale_of
from quadnas.latency.model import Estimate, estimate
from quadnas.latency.spread import UNSCALED, Scale
from quadnas.testing.toy_device import ARRAYS, card, model


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for the user's own files, and the file of a model."""
    monkeypatch.setenv("QUADNAS_HOME", str(tmp_path / "home"))
    (tmp_path / "model.yaml").write_text("a model")
    return tmp_path / "home"


def network(size: int) -> Estimate:
    return estimate(model(), [Kernel("conv", 7, 7, (8,), 8 * size, batch=2)])


def measure(tmp_path: Path, size: int, ratio: float, of: Estimate | None = None) -> Scale:
    one = of or network(size)
    raw_ms = one.upper_ms(None) / one.scale.factor
    return record(one, 2, Measured(tmp_path / "model.yaml", raw_ms * ratio, "2026-01-31"))


def found(scale: Scale) -> tuple[float, int]:
    return round(scale.factor, 9), scale.models


def test_one_measurement_alone_scales_nothing(tmp_path: Path) -> None:
    assert measure(tmp_path, 1, 1.3) == UNSCALED
    assert found(measure(tmp_path, 1, 1.4)) == (1.4, 1)  # the same model again


def test_the_scale_is_the_median_over_models_and_a_remeasured_one_counts_anew(tmp_path: Path) -> None:
    measure(tmp_path, 1, 1.3)
    assert found(measure(tmp_path, 2, 0.9)) == (1.1, 2)
    assert found(measure(tmp_path, 3, 0.8)) == (0.9, 3)
    assert found(measure(tmp_path, 1, 0.85)) == (0.85, 3)
    assert found(scale_of(card())) == (0.85, 3)


def test_a_scaled_prediction_is_recorded_without_its_scale(tmp_path: Path, home: Path) -> None:
    measure(tmp_path, 1, 0.5)
    measure(tmp_path, 2, 0.5)
    scaled = estimate(Scaled(model(), scale_of(card())), network(3).kernels)
    assert scaled.upper_ms(None) == pytest.approx(0.5 * network(3).upper_ms(None))
    assert scaled.shares == network(3).shares and scaled.scale.models == 2
    assert found(measure(tmp_path, 3, 0.5, of=scaled)) == (0.5, 3)
    lines = [json.loads(line) for line in (home / "measurements/toy.jsonl").read_text().splitlines()]
    assert lines[2]["predicted_ms"] == pytest.approx(network(3).upper_ms(None))
    assert {line["date"] for line in lines} == {"2026-01-31"} and {line["batch"] for line in lines} == {2}
    assert len({line["kernels_sha256"] for line in lines}) == 3
    assert len({line["model_sha256"] for line in lines}) == 1


def test_another_version_of_the_predictor_starts_anew_and_says_so(tmp_path: Path) -> None:
    measure(tmp_path, 1, 0.9)
    measure(tmp_path, 2, 0.9)
    other = card(extrapolation_error=0.3)
    assert scale_of(other) == Scale(stale=2)
    assert "2 of your measurements are of another version" in str(scale_of(other))
    reworded = card(provenance="said otherwise", error_quantiles=[[0.1, 0.9], [0.9, 1.2]])
    assert scale_of(reworded).models == 2


def test_a_device_is_loaded_with_its_scale(tmp_path: Path) -> None:
    arrays = safetensors.numpy.save(ARRAYS)
    toy = card(arrays={"coefficients.safetensors": hashlib.sha256(arrays).hexdigest()})
    folder = tmp_path / "device"
    folder.mkdir()
    (folder / "coefficients.safetensors").write_bytes(arrays)
    (folder / "card.yaml").write_bytes(write_card(toy))
    assert load_corrected(str(folder)).scale == UNSCALED
    for size in (1, 2):
        measure(tmp_path, size, 0.8, of=estimate(load_corrected(str(folder)), network(size).kernels))
    loaded = load_corrected(str(folder))
    assert str(loaded.scale) == "scaled by 0.8 from your measurements of 2 models"
    assert loaded.price(network(1).kernels)[0].latency_ms == pytest.approx(0.8 * network(1).upper_ms(None))
    uncovered = loaded.price([Kernel("unknown", 1, 1, (1,), 1, batch=2)])[0]
    assert uncovered.latency_ms is None


def test_a_torn_last_line_is_dropped_and_the_next_measurement_is_whole(tmp_path: Path, home: Path) -> None:
    measure(tmp_path, 1, 0.9)
    measure(tmp_path, 2, 0.9)
    journal = home / "measurements/toy.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"model": "mod')
    assert scale_of(card()).models == 2
    assert measure(tmp_path, 3, 0.9).models == 3
    assert len(journal.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [("measured_ms", -1.0), ("predicted_ms", 0.0), ("measured_ms", "fast"), ("batch", 0), ("flavour", 1)],
)
def test_a_damaged_journal_is_refused_with_its_line(
    tmp_path: Path, home: Path, key: str, value: object
) -> None:
    measure(tmp_path, 1, 0.9)
    measure(tmp_path, 2, 0.9)
    journal = home / "measurements/toy.jsonl"
    first, second = journal.read_text().splitlines()
    journal.write_text(json.dumps({**json.loads(first), key: value}) + f"\n{second}\n")
    with pytest.raises(DataError, match=rf"toy\.jsonl: line 1 is no measurement \({key}"):
        scale_of(card())


def test_what_cannot_be_recorded_leaves_no_line(tmp_path: Path, home: Path) -> None:
    unknown = estimate(model(), [Kernel("unknown", 1, 1, (1,), 1, batch=2)])
    with pytest.raises(CoverageError):
        record(unknown, 2, Measured(tmp_path / "model.yaml", 1.0, "2026-01-31"))
    with pytest.raises(ConfigError, match="cannot read"):
        record(network(1), 2, Measured(tmp_path / "missing.yaml", 1.0, "2026-01-31"))
    with pytest.raises(ConfigError, match="cannot name a device"):
        record(
            Estimate(network(1).kernels, network(1).prices, card(device="../evil")),
            2,
            Measured(tmp_path / "model.yaml", 1.0, "2026-01-31"),
        )
    assert not list(home.rglob("*.jsonl"))


WRITER = """
import sys
from pathlib import Path
from quadnas.latency.kernels import Kernel
from quadnas.latency.measurements import Measured, record
from quadnas.latency.model import estimate
from quadnas.testing.toy_device import model
for size in range(int(sys.argv[1]), int(sys.argv[1]) + 25):
    found = estimate(model(), [Kernel("conv", 7, 7, (8,), size, batch=2)])
    record(found, 2, Measured(Path(sys.argv[2]), 1.0, "2026-01-31"))
"""


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    writers = [
        Popen([sys.executable, "-c", WRITER, str(first), str(tmp_path / "model.yaml")])
        for first in (100, 200, 300)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert scale_of(card()).models == 75
