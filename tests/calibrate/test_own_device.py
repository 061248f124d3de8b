"""A calibration from settings to device folder, on a runtime whose times follow a formula, and once for real."""

import json
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from quadnas.calibrate import fit
from quadnas.calibrate.own.device import calibrate
from quadnas.calibrate.own.runtime import RUNTIMES, Graph
from quadnas.errors import ConfigError, DataError, Interrupted
from quadnas.latency.card import DeviceCard
from quadnas.latency.devices import load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import LatencyModel, estimate
from quadnas.network import kernels_of
from quadnas.run.interrupt import StopFlag
from tests.calibrate.bench_toys import FormulaRuntime, begun, bench, exact, formula_ms, noisy
from tests.cli.command import TINY_SPACE, write
from tests.toy import toy_space

CLASSES = 1000


def without_winners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the search for the bias of winners, which is most of the time and has its own tests."""
    monkeypatch.setattr(fit, "_with_winners", lambda card, *_: card)


def calibrated(
    path: Path, runtime: FormulaRuntime, timer: Callable[..., tuple[float, float]] = exact, **changes: object
) -> DeviceCard:
    settings, folder = begun(path, **changes)
    with folder:
        return calibrate(settings, toy_space(), runtime.description, bench(folder, runtime, timer), folder)


def random_kernels(model: LatencyModel, count: int, seed: int) -> Iterator[list[Kernel]]:
    """The kernels of other architectures of the toy space than any calibration draws."""
    space, draw = toy_space(), np.random.default_rng(seed)
    for _ in range(count):
        choices = [int(draw.integers(len(slot.candidates))) for slot in space.slots]
        yield kernels_of(space.layers(choices, CLASSES), 64, model)


def wobble(graph: Graph) -> float:
    """A factor of its own for every whole network, log-normal with 5 %."""
    if not graph.layers:
        return 1.0
    seed = zlib.crc32(repr(graph.operators).encode())
    return math.exp(0.05 * float(np.random.default_rng(seed).standard_normal()))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration of exact times; read it, never change it."""
    path = tmp_path_factory.mktemp("clean") / "mine"
    with pytest.MonkeyPatch.context() as patch:
        without_winners(patch)
        calibrated(path, FormulaRuntime())
    return path


def test_the_formula_comes_back(clean: Path) -> None:
    model = load_device(str(clean))
    held_out = model.card.held_out
    assert held_out is not None
    assert held_out.models >= 20
    assert (held_out.within_5, held_out.uncovered_models) == (1.0, 0)
    assert held_out.rmspe < 0.02
    for kernels in random_kernels(model, 30, seed=7):
        found = estimate(model, kernels)
        assert found.latency_ms == pytest.approx(sum(map(formula_ms, kernels)), rel=0.03)
        assert found.shares["exact"] == 1.0


def test_kernels_alone_are_priced_too(clean: Path) -> None:
    """Inside the sampled ranges, where no network of the space ever was."""
    model = load_device(str(clean))
    kernels = [
        Kernel("conv", 28, 28, (96,), 192),
        Kernel("conv", 14, 14, (64,), 128, kernel=3),
        Kernel("dwconv", 28, 28, (192,), 192, kernel=9),
        Kernel("gelu", 28, 28, (256,), 256),
        Kernel("layernorm", 14, 14, (384,), 384),
    ]
    for kernel, price in zip(kernels, model.price(kernels), strict=True):
        assert price.latency_ms == pytest.approx(formula_ms(kernel), rel=0.35), kernel


def test_the_card_says_what_it_is(clean: Path) -> None:
    card = load_device(str(clean)).card
    assert (card.device, card.runtime, card.batches, card.precision) == ("mine", "a formula", (1, 1), "fp32")
    assert {13} <= set(card.sampled["dwconv"][0].kernels)
    assert card.sampled["conv"][0].h[1] >= 56
    rerun = card.rerun
    assert rerun is not None
    assert (rerun.repeated_within_5, rerun.disturbed, rerun.space) == (1.0, 0.0, "toy")
    assert rerun.winners >= 20
    assert rerun.winners_within >= 0.9


def test_no_sample_beats_the_peaks(clean: Path) -> None:
    """The formula's 20 GMAC/s, with room above it, and never below."""
    assert 20 <= load_device(str(clean)).card.peak_gmacs_per_second <= 3 * 20


def test_the_interval_holds_what_networks_do_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_winners(monkeypatch)
    runtime = FormulaRuntime(factor=wobble)
    calibrated(tmp_path / "mine", runtime, noisy(0.02), minutes=0.6)
    model = load_device(str(tmp_path / "mine"))
    draws = np.random.default_rng(11)
    inside = []
    for kernels in random_kernels(model, 300, seed=5):
        low, high = estimate(model, kernels).interval_ms(0.9)
        truth = sum(map(formula_ms, kernels)) * math.exp(0.05 * float(draws.standard_normal()))
        inside.append(low <= truth <= high)
    assert 0.82 <= np.mean(inside) <= 0.97


def test_searched_networks_keep_their_limit_by_the_bias_of_winners(tmp_path: Path) -> None:
    space = write(tmp_path / "tiny.yaml", TINY_SPACE)
    card = calibrated(tmp_path / "mine", FormulaRuntime(factor=wobble), noisy(0.02), space=str(space))
    assert card.winners is not None
    assert card.winners.searches > 0
    assert card.rerun is not None
    assert card.rerun.winners_within >= 0.85


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_killed_calibration_goes_on_to_the_same_card(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Cut the journal in the middle of a line: what was measured before is kept, the rest is measured again."""
    without_winners(monkeypatch)
    path = tmp_path / "mine"
    settings, folder = begun(path)
    journal = (clean / "journal.jsonl").read_bytes()
    (path / "journal.jsonl").write_bytes(journal[: int(share * len(journal))])
    kept = journal[: int(share * len(journal))].count(b"\n")
    runtime = FormulaRuntime()
    with folder:
        card = calibrate(settings, toy_space(), runtime.description, bench(folder, runtime), folder)
    assert card == load_device(str(clean)).card
    whole = FormulaRuntime()
    assert runtime.loaded <= 16 * (journal.count(b"\n") - kept) + 1
    assert whole.loaded == 0
    lines = [json.loads(line) for line in (path / "journal.jsonl").read_text().splitlines()]
    assert [line["graphs"] for line in lines] == [json.loads(line)["graphs"] for line in journal.splitlines()]


def test_a_finished_calibration_measures_nothing_again(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_winners(monkeypatch)
    path = tmp_path / "mine"
    settings, folder = begun(path)
    (path / "journal.jsonl").write_bytes((clean / "journal.jsonl").read_bytes())
    runtime = FormulaRuntime()
    with folder:
        card = calibrate(settings, toy_space(), runtime.description, bench(folder, runtime), folder)
    assert runtime.loaded == 0
    assert card == load_device(str(clean)).card


def test_a_signal_stops_between_two_batches(tmp_path: Path) -> None:
    settings, folder = begun(tmp_path / "mine")
    stop = StopFlag()

    def asked_to_stop(_: Graph) -> float:
        stop.signal = 15
        return 1.0

    runtime = FormulaRuntime(factor=asked_to_stop)
    with folder, pytest.raises(Interrupted, match="the same command goes on") as raised:
        calibrate(settings, toy_space(), runtime.description, bench(folder, runtime, stop=stop), folder)
    assert raised.value.exit_code == 143
    assert len((tmp_path / "mine" / "journal.jsonl").read_text().splitlines()) == 1


def test_other_settings_do_not_go_on_in_the_same_folder(tmp_path: Path) -> None:
    begun(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"other settings \(input_size\)"):
        begun(tmp_path / "mine", input_size=96)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"latency_ms": ', '"latency_ms": -'),
        ('"graphs": "', '"graphs": "0'),
        ('"timings": [{', '"timings": [{"speed": 1, '),
        ('"seconds"', '"minutes"'),
    ],
)
def test_a_changed_journal_is_refused(clean: Path, tmp_path: Path, old: str, new: str) -> None:
    settings, folder = begun(tmp_path / "mine")
    text = (clean / "journal.jsonl").read_text()
    assert old in text
    (tmp_path / "mine" / "journal.jsonl").write_text(text.replace(old, new, 1))
    runtime = FormulaRuntime()
    with folder, pytest.raises(DataError, match="the journal"):
        calibrate(settings, toy_space(), runtime.description, bench(folder, runtime), folder)


def test_the_runtimes_are_known_by_name() -> None:
    assert list(RUNTIMES) == ["onnxruntime", "openvino", "torch"]
