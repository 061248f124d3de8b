"""The figures on the shipped cards, measured again with the shipped arrays on the held-out networks."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quadnas.calibrate.evaluate import estimates, evaluate, interval_coverage
from quadnas.calibrate.layernorm import layernorm_rule
from quadnas.calibrate.measured import MeasuredNetwork, read_measured
from quadnas.latency.devices import load_device

MEASURED = Path(os.environ.get("QUADNAS_MEASURED", Path(__file__).parents[2] / "../shared/data"))
BENCH = "nnmeter_bench/measured.jsonl.gz"
DATA = {"cortexA76": BENCH, "myriadvpu": BENCH, "a100": "a100/whole_networks.jsonl.gz"}

pytestmark = pytest.mark.skipif(
    not MEASURED.is_dir(), reason="no measured networks: set QUADNAS_MEASURED to their folder"
)


@cache
def held_out(device: str) -> list[MeasuredNetwork]:
    card = load_device(device).card
    networks = read_measured(MEASURED / DATA[device], card.measured_column, card.measured_batch)
    return [network for network in networks if network.held_out]


@cache
def report(device: str) -> dict[str, Any]:
    model = load_device(device, load_device(device).card.measured_batch)
    return evaluate(model, held_out(device))


@pytest.mark.parametrize("device", list(DATA))
def test_the_card_states_what_is_measured(device: str) -> None:
    figures = load_device(device).card.held_out.model_dump()
    assert figures == {key: pytest.approx(report(device)[key], abs=6e-5) for key in figures}


def test_the_a76_keeps_its_promise() -> None:
    found = report("cortexA76")
    assert found["models"] > 2000 and found["uncovered_models"] == 0
    assert found["within_10"] >= 0.98
    assert min(family["within_10"] for family in found["families"].values()) >= 0.95


@pytest.mark.parametrize("device", ["cortexA76", "myriadvpu"])
def test_every_family_was_left_out_once(device: str) -> None:
    card = load_device(device).card
    assert {left.family for left in card.families_left_out} == set(report(device)["families"])


@pytest.mark.parametrize("device", list(DATA))
def test_the_90_percent_interval_holds_90_percent_of_covered_networks(device: str) -> None:
    """The quantiles come from the training part alone, so the held-out fifth can contradict them."""
    model = load_device(device, load_device(device).card.measured_batch)
    networks = held_out(device)
    pairs = [
        (one, network.latency_ms)
        for one, network in zip(estimates(model, networks), networks, strict=True)
        if one.shares["exact"] >= 0.95
    ]
    if not pairs:  # an interval with surrogate errors in it is labelled uncalibrated
        pytest.skip(f"{device}: no network is covered by exact prices")
    found, measured_ms = zip(*pairs, strict=True)
    for confidence in (0.5, 0.8, 0.9, 0.95):
        share = interval_coverage(found, np.array(measured_ms), confidence)
        assert share == pytest.approx(confidence, abs=0.03), confidence


def test_layernorm_on_the_a76_is_what_the_measured_blocks_say() -> None:
    model = load_device("cortexA76")
    rule = layernorm_rule(model, MEASURED / "cortexA76/pixel4_tflite_block_table.json.gz")
    assert model.card.surrogates["layernorm"] == rule
