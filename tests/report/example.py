"""A run made by hand: what the report is given."""

import math
import random
from dataclasses import asdict
from typing import Any

from quadnas.latency.card import DeviceCard, HeldOut, LeftOut, Winners
from quadnas.run.events import ArchitectureStep, Event, Notice, PhaseStarted, WeightStep
from quadnas.search.result import IntervalRecord, SearchResult, SlotRecord, SurrogateRecord
from quadnas.search.settings import SearchSettings

LABELS = (
    "quadra-k3-e2",
    "quadra-k3-e4",
    "quadra-k5-e2",
    "quadra-k5-e4",
    "quadra-k7-e2",
    "quadra-k7-e4",
    "identity",
)
PRICES_MS = (4.0, 6.0, 5.0, 7.0, 6.5, 9.0, 0.0)


def device_card(**changes: Any) -> DeviceCard:
    """A card with what a report reads of it; its figures are made up."""
    fields: dict[str, Any] = {
        "device": "cortexA76",
        "description": "One Cortex-A76 core at 2.42 GHz.",
        "runtime": "TFLite 2.1",
        "precision": "fp32",
        "batch": 1,
        "measured_batch": 1,
        "source": "fitted",
        "provenance": "nn-Meter bench",
        "extrapolation_error": 0.1,
        "surrogates": {},
        "held_out": HeldOut(
            models=1234,
            uncovered_models=3,
            within_5=0.85,
            within_10=0.987,
            within_15=0.995,
            rmspe=0.0345,
            spearman=0.998,
            interval_90=0.895,
        ),
        "winners": Winners(
            space="quadranet",
            searches=200,
            bias=1.012,
            surrogate_bias=1.034,
            quantiles=((0.05, 0.98), (0.95, 1.05)),
        ),
        "families_left_out": (
            LeftOut(
                family="mobilenetv3",
                models=400,
                within_5=0.51,
                within_10=0.82,
                bias=-0.043,
                exact=0.9,
                interval_90=0.632,
            ),
            LeftOut(family="resnet", models=300, within_5=0.71, within_10=0.92, bias=0.021, exact=1.0),
        ),
    }
    return DeviceCard.model_construct(**{**fields, **changes})


def slot(stage: int, chosen: str, train_map: int = 8, deployed_map: int = 56) -> SlotRecord:
    """A slot with the seven candidates of ``LABELS``, in a network that may take 2.5 ms more than it does."""
    own_ms = PRICES_MS[LABELS.index(chosen)]
    return SlotRecord(
        stage=stage,
        labels=LABELS,
        latency_ms=PRICES_MS,
        chosen=LABELS.index(chosen),
        fits=tuple(price_ms <= own_ms + 2.5 for price_ms in PRICES_MS),
        train_map=train_map,
        deployed_map=deployed_map,
    )


def search_result(**changes: Any) -> SearchResult:
    """Two stages: three slots of which the last is empty, and two equal slots trained on 2 x 2 maps."""
    fields: dict[str, Any] = {
        "architecture": "quadra-k7-e4,quadra-k3-e2,identity|quadra-k5-e2,quadra-k5-e2",
        "device": "cortexA76",
        "latency_ms": 32.5,
        "bound_ms": 32.5,
        "interval_ms": IntervalRecord(confidence=0.9, low=30.5, high=35.25, calibrated=False),
        "scale": "",
        "limit_ms": 35.0,
        "feasible_ms": (14.0, 60.0),
        "shares": {"exact": 0.8, "surrogate": 0.2, "uncovered": 0.0},
        "surrogates": (
            SurrogateRecord(op="gelu", latency_ms=4.5, error=0.1, reason="never measured; factor of relu"),
            SurrogateRecord(op="layernorm", latency_ms=2.0, error=0.1, reason="from Pixel 4 FFN blocks"),
        ),
        "slots": (
            slot(0, "quadra-k7-e4"),
            slot(0, "quadra-k3-e2"),
            slot(0, "identity"),
            slot(1, "quadra-k5-e2", train_map=2, deployed_map=28),
            slot(1, "quadra-k5-e2", train_map=2, deployed_map=28),
        ),
        "parameters": 1234567,
        "train_size": 32,
        "test_images": 400,
        "initial_accuracy": 0.801,
        "accuracy": 0.8425,
        "retrained": True,
        "demonstration": True,
        "data_note": "Digits are 8x8 images.",
        "files": {"model": "model.yaml", "weights": "model.safetensors"},
    }
    return SearchResult(**{**fields, **changes})


def search_settings(**changes: Any) -> SearchSettings:
    """A search on digits under 35 ms."""
    return SearchSettings(**{"device": "cortexA76", "max_latency_ms": 35.0, **changes})


def search_events(result: SearchResult, steps: int = 40) -> list[Event]:
    """A made-up course of warm-up, search and retraining with ``steps`` steps each."""
    noise = random.Random(0)
    events: list[Event] = [Notice("the data are read from a cache")]
    for phase in ("warm-up", "search", "retraining"):
        events.append(PhaseStarted(phase, 0, steps))
        for step in range(1, steps + 1):
            progress = step / steps
            events.append(
                WeightStep(
                    phase,
                    step,
                    steps,
                    loss=2.3 * math.exp(-progress) + 0.1 * noise.random(),
                    accuracy=0.8 * progress + 0.1 * noise.random(),
                    learning_rate=1e-3,
                )
            )
            if phase == "search" and step % 2 == 0:
                events.append(_architecture_step(result, step, progress, noise))
    return events


def _architecture_step(
    result: SearchResult, step: int, progress: float, noise: random.Random
) -> ArchitectureStep:
    rows = []
    for record in result.slots:
        scores = [3 * progress * noise.random() + (2 * progress * (i == record.chosen)) for i in range(7)]
        total = sum(map(math.exp, scores))
        rows.append(tuple(math.exp(score) / total for score in scores))
    low, high = result.feasible_ms
    return ArchitectureStep(
        step,
        loss=2.4 * math.exp(-progress),
        accuracy=0.7 * progress,
        expected_ms=(low + high) / 2 * (1 - progress) + result.latency_ms * progress + noise.random(),
        argmax_ms=(low + high) / 2 * (1.2 - progress) + result.latency_ms * progress,
        limit_ms=result.limit_ms,
        multiplier=max(0.0, math.sin(3 * progress)) / 3,
        probabilities=tuple(rows),
    )


def journal(events: list[Event]) -> list[dict[str, Any]]:
    """The events as the journal's lines hold them."""
    return [{"event": type(event).__name__, **asdict(event)} for event in events]
