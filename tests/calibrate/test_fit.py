"""The fitter on networks whose true kernel times are known."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from quadnas.calibrate.fit import ARRAY_FILE, fit_device
from quadnas.calibrate.measured import MeasuredNetwork, read_measured
from quadnas.errors import ConfigError, DataError
from quadnas.latency.devices import load_device
from quadnas.latency.model import Coverage
from quadnas.testing.toy_device import facts, model


def write_networks(path: Path, count: int, noise: float = 0.0, outliers: float = 0.0) -> Path:
    """Random networks, timed by the hand-computed device (plus noise, and some three times too slow)."""
    rng = np.random.default_rng(0)
    truth = model()
    lines = []
    for number in range(count):
        rows: list[list[object]] = []
        for _ in range(int(rng.integers(3, 12))):
            side, channels, out = int(rng.integers(7, 15)), int(rng.integers(8, 65)), int(rng.integers(8, 65))
            rows.append(
                ["conv-bn-relu", side, channels, out, int(rng.choice((1, 3))), int(rng.choice((1, 2)))]
            )
            if rng.random() < 0.5:
                op = "mul" if rng.random() < 0.5 else "add"
                rows.append([op, side, [channels, channels], channels, 1, 1])
        line = {"id": str(number), "family": f"f{number % 2}", "latency_ms": {"toy": 1.0}, "kernels": rows}
        path.write_text(json.dumps(line))
        (network,) = read_measured(path, "toy", 2)
        total_ms = sum(price.latency_ms or 0.0 for price in truth.price(network.kernels))
        disturbance = 3.0 if rng.random() < outliers else 1 + noise * rng.standard_normal()
        line["latency_ms"] = {"toy": total_ms * disturbance}
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines))
    return path


def write_facts(path: Path, **changes: object) -> str:
    terms = {"conv": ["macs", "calls", "weights"], "add": ["elements", "rows"]}
    path.write_text(yaml.safe_dump({**facts(), "terms": terms, **changes}))
    return str(path)


def test_the_true_coefficients_come_back(tmp_path: Path) -> None:
    data = write_networks(tmp_path / "m.jsonl", 200)
    card = fit_device(write_facts(tmp_path / "facts.yaml"), [data], tmp_path / "out")
    fitted = load_device(str(tmp_path / "out"))
    assert fitted.arrays["conv"] == pytest.approx([2e-6, 0.5, 0.0], rel=1e-3, abs=1e-8)
    assert fitted.arrays["add"] == pytest.approx([1e-3, 0.0], rel=1e-3, abs=1e-6)
    assert card.held_out and (card.held_out.within_5, card.held_out.rmspe) == (1.0, 0.0)
    assert fitted.card == card


def test_disturbed_measurements_do_not_bend_the_fit(tmp_path: Path) -> None:
    data = write_networks(tmp_path / "m.jsonl", 400, noise=0.02, outliers=0.1)
    card = fit_device(write_facts(tmp_path / "facts.yaml"), [data], tmp_path / "out")
    conv = load_device(str(tmp_path / "out")).arrays["conv"]
    assert conv[:2] == pytest.approx([2e-6, 0.5], rel=0.1)
    held = card.held_out
    assert held and card.error_quantiles
    assert 0.8 < held.within_10 < 0.97  # the outliers among the held-out are counted, not dropped
    quantiles = dict(card.error_quantiles)
    assert quantiles[0.5] == pytest.approx(1.0, abs=0.01) and quantiles[0.8] < 1.06 and quantiles[0.99] > 2.5


def test_a_family_left_out_is_predicted_by_the_others(tmp_path: Path) -> None:
    data = write_networks(tmp_path / "m.jsonl", 200)
    card = fit_device(write_facts(tmp_path / "facts.yaml"), [data], tmp_path / "out")
    assert [left.family for left in card.families_left_out] == ["f0", "f1"]
    for left in card.families_left_out:
        assert left.models == 100 and left.within_5 == 1.0 and left.bias == pytest.approx(0, abs=1e-3)
        assert 0 < left.exact < 1  # mul has a stand-in


def slowed(path: Path, which: Callable[[MeasuredNetwork], bool]) -> Path:
    """The networks of ``path``, of which some take twice as long."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line, network in zip(lines, read_measured(path, "toy", 2), strict=True):
        line["latency_ms"]["toy"] *= 2 if which(network) else 1
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_the_held_out_networks_are_not_fitted_to(tmp_path: Path) -> None:
    data = slowed(write_networks(tmp_path / "m.jsonl", 200), lambda network: network.held_out)
    card = fit_device(write_facts(tmp_path / "facts.yaml"), [data], tmp_path / "out")
    assert load_device(str(tmp_path / "out")).arrays["conv"] == pytest.approx(
        [2e-6, 0.5, 0.0], rel=1e-3, abs=1e-8
    )
    assert (
        card.held_out and card.held_out.within_15 == 0 and card.held_out.rmspe == pytest.approx(0.5, abs=1e-3)
    )


def test_a_family_left_out_is_not_fitted_to(tmp_path: Path) -> None:
    data = slowed(write_networks(tmp_path / "m.jsonl", 200), lambda network: network.family == "f1")
    card = fit_device(write_facts(tmp_path / "facts.yaml"), [data], tmp_path / "out")
    assert {left.family: left.bias for left in card.families_left_out} == {
        "f0": pytest.approx(1.0, abs=2e-3),
        "f1": pytest.approx(-0.5, abs=2e-3),
    }


def test_the_same_data_give_the_same_bytes_and_refit_from_the_card(tmp_path: Path) -> None:
    data = write_networks(tmp_path / "m.jsonl", 100, noise=0.02)
    fit_device(write_facts(tmp_path / "facts.yaml"), [data], tmp_path / "one")
    fit_device(str(tmp_path / "one"), [data], tmp_path / "two")
    for name in ("card.yaml", ARRAY_FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_card_says_what_was_measured(tmp_path: Path) -> None:
    data = write_networks(tmp_path / "m.jsonl", 200)
    card = fit_device(write_facts(tmp_path / "facts.yaml"), [data], tmp_path / "out")
    assert set(card.sampled) == {"conv", "add"}
    (conv,) = card.sampled["conv"]
    assert (conv.basis, conv.batches, conv.kernels, conv.h) == ("measured", (2, 2), (1, 3), (7, 14))
    fitted = load_device(str(tmp_path / "out"))
    networks = read_measured(data, "toy", 2)
    coverages = {p.coverage for n in networks if not n.held_out for p in fitted.price(n.kernels)}
    assert coverages == {Coverage.EXACT, Coverage.SURROGATE}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terms": {"conv": ["macs"]}}, "cannot be fitted to the operator 'add'.*terms are given for conv"),
        ({"measured_column": "other"}, "no network has a latency 'other'"),
        ({"flavour": "sweet"}, "unknown key 'flavour'"),
    ],
)
def test_facts_that_do_not_fit_the_data_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    data = write_networks(tmp_path / "m.jsonl", 30)
    with pytest.raises(ConfigError, match=message):
        fit_device(write_facts(tmp_path / "facts.yaml", **changes), [data], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def rare_and_common(path: Path, rare: int, true_factor: float) -> Path:
    """Networks of 3x3 max-pools, ``rare`` of which hold one avg-pool, ``true_factor`` times as slow per tap."""
    rng = np.random.default_rng(3)
    lines = []
    for number in range(200):
        sides = rng.integers(7, 15, size=6).tolist()
        rows = [["max-pool", side, 32, 32, 3, 1] for side in sides]
        taps = [side * side * 32 * 9 * 2 for side in sides]
        total_ms = sum(0.001 + 1e-4 * count for count in taps)
        if number < rare:
            rows.append(["avg-pool", 7, 1, 1, 2, 1])
            total_ms += 0.001 + true_factor * 1e-4 * 7 * 7 * 4 * 2
        noise = 1 + 0.02 * rng.standard_normal()
        line = {"id": str(number), "family": "f", "latency_ms": {"toy": total_ms * noise}, "kernels": rows}
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines))
    return path


def fitted_pools(tmp_path: Path, data: Path) -> tuple[float, float]:
    rule = {"reference": "max-pool", "factor": 1.5, "error": 0.3, "reason": "the same code"}
    facts = write_facts(
        tmp_path / "facts.yaml",
        terms={"max-pool": ["taps"], "avg-pool": ["taps"]},
        surrogates={"avg-pool": rule},
        peak_gbytes_per_second=1e6,
    )
    fit_device(facts, [data], tmp_path / "out")
    arrays = load_device(str(tmp_path / "out")).arrays
    return float(arrays["max-pool"][0]), float(arrays["avg-pool"][0])


def test_an_operator_of_which_the_networks_say_little_leans_on_its_stand_in(tmp_path: Path) -> None:
    """An avg-pool is 0.02 % of its network's time, which varies by 2 %."""
    common, rare = fitted_pools(tmp_path, rare_and_common(tmp_path / "m.jsonl", rare=10, true_factor=3.0))
    assert common == pytest.approx(1e-4, rel=0.01)
    assert rare == pytest.approx(1.5 * common, rel=0.02)


def test_an_operator_that_was_measured_hardly_leans(tmp_path: Path) -> None:
    data = rare_and_common(tmp_path / "m.jsonl", rare=0, true_factor=1.0)
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    for line in lines[::2]:  # half of the networks average, at three times the time
        line["latency_ms"]["toy"] *= 3
        line["kernels"] = [["avg-pool", *row[1:]] for row in line["kernels"]]
    data.write_text("\n".join(map(json.dumps, lines)))
    assert fitted_pools(tmp_path, data) == pytest.approx((1e-4, 3e-4), rel=0.05)


def test_selected_terms_stand_on_the_card_and_are_kept_without_selection(tmp_path: Path) -> None:
    data = write_networks(tmp_path / "m.jsonl", 200, noise=0.01)
    candidates = {"conv": ["macs", "weights", "output", "calls"], "add": ["elements", "rows"]}
    first = {op: names[:1] for op, names in candidates.items()}
    facts = write_facts(tmp_path / "facts.yaml", terms=first, candidates=candidates)
    card = fit_device(facts, [data], tmp_path / "one", select=True)
    assert card.terms == {"conv": ("macs", "calls"), "add": ("elements",)}
    fit_device(str(tmp_path / "one"), [data], tmp_path / "two")
    fit_device(str(tmp_path / "one"), [data], tmp_path / "three", select=True)
    for name in ("card.yaml", ARRAY_FILE):
        bytes_of = [(tmp_path / folder / name).read_bytes() for folder in ("one", "two", "three")]
        assert bytes_of[0] == bytes_of[1] == bytes_of[2]


def test_an_unknown_candidate_is_refused(tmp_path: Path) -> None:
    data = write_networks(tmp_path / "m.jsonl", 30)
    facts = write_facts(tmp_path / "facts.yaml", candidates={"conv": ["macs", "magic"]})
    with pytest.raises(DataError, match="unknown terms of 'conv': magic"):
        fit_device(facts, [data], tmp_path / "out", select=True)


def test_operators_whose_time_the_totals_do_not_hold_are_left_out(tmp_path: Path) -> None:
    data = write_networks(tmp_path / "m.jsonl", 100)
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    for line in lines:
        line["kernels"].append(["fc-relu", 1, 5000, 5000, 1, 1])
    data.write_text("\n".join(map(json.dumps, lines)))
    facts = write_facts(tmp_path / "facts.yaml", reading={"without": ["fc"]})
    card = fit_device(facts, [data], tmp_path / "out")
    assert card.held_out is not None and card.held_out.within_5 == 1.0
    assert "fc" not in card.sampled


def test_too_few_networks_are_refused(tmp_path: Path) -> None:
    data = write_networks(tmp_path / "m.jsonl", 1)
    with pytest.raises(ConfigError, match="1 networks are too few"):
        fit_device(write_facts(tmp_path / "facts.yaml"), [data], tmp_path / "out")
