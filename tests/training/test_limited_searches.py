"""Whole searches under several limits: each one holds, in JSON too; a front that is stopped anywhere."""

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from quadnas.errors import Interrupted
from quadnas.latency.devices import load_device
from quadnas.latency.model import estimate
from quadnas.network import Network, kernels_of
from quadnas.run.events import Event, PhaseStarted
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag
from quadnas.search import loop
from quadnas.search.front import read_front
from quadnas.search.problem import pose
from quadnas.search.result import read_result
from quadnas.search.settings import LatencyLimit, SearchSettings
from quadnas.search.work import prepare
from quadnas.space.model_spec import load_model_spec
from tests.cli.command import TINY_SPACE, quadnas, write

QUICK = {"warmup_epochs": 1, "search_epochs": 1, "architecture_every": 1}


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("space") / "tiny.yaml", TINY_SPACE)


def settings(space: Path, **changes: Any) -> SearchSettings:
    fields: dict[str, Any] = {
        "device": "cortexA76", "max_latency_ms": 3.0, "space": str(space), "train_size": 32, "train_images": 75,
        "recipe": {"batch_size": 16}, "schedule": {**QUICK, "retrain_epochs": 0},
    }  # fmt: skip
    return SearchSettings.model_validate({**fields, **changes})


def latency_ms(model: Path, device: str) -> float:
    spec, priced = load_model_spec(model), load_device(device)
    found = estimate(priced, kernels_of(spec.layers, 224, priced)).latency_ms
    assert found is not None
    return found


def test_random_limits_close_to_the_minimum_or_anywhere_hold(space: Path, tmp_path: Path) -> None:
    generator = random.Random(0)
    unlimited = settings(
        space,
        max_latency_ms=1e9,
        also=(LatencyLimit(device="myriadvpu", max_latency_ms=1e9),),
        max_parameters=10**9,
    )
    ranges = [limit.costs.range for limit in pose(unlimited, 10).limits]
    for number, share in enumerate((1e-9, 0.0009, 0.3, 0.8)):
        first, second, parameters = (low + share * (high - low) for low, high in ranges)
        chosen = settings(
            space, max_latency_ms=first, also=(LatencyLimit(device="myriadvpu", max_latency_ms=second),),
            max_parameters=int(parameters) + 1, seed=generator.randrange(1000),
        )  # fmt: skip
        path = tmp_path / str(number)
        with RunFolder.create(path, chosen.model_dump(mode="json")) as folder:
            loop.search(prepare(chosen), folder, lambda event: None, StopFlag())
        model = path / "model.yaml"
        assert latency_ms(model, "cortexA76") <= first
        assert latency_ms(model, "myriadvpu") <= second
        layers = load_model_spec(model).layers
        assert sum(p.numel() for p in Network(layers).parameters()) <= parameters + 1


def test_two_devices_and_a_size_on_the_command_line(space: Path, tmp_path: Path) -> None:
    write(
        tmp_path / "s.yaml",
        f"space: {space}\ntrain_size: 32\ntrain_images: 75\nschedule: {json.dumps(QUICK)}\n",
    )
    answer = quadnas(
        "search", "--config", tmp_path / "s.yaml", "--out", tmp_path / "run", "--retrain-epochs", 0, "--json",
        "--device", "cortexA76", "--max-latency", "3ms", "--device", "myriadvpu", "--max-latency", "2ms",
        "--max-parameters", "15k", "--max-macs", "7M", "--max-bytes", "50KiB",
    ).json  # fmt: skip
    assert answer["limit_ms"] == {"cortexA76": 3.0, "myriadvpu": 2.0}
    for device, limit_ms in answer["limit_ms"].items():
        assert answer["latency_ms"][device] == pytest.approx(latency_ms(tmp_path / "run/model.yaml", device))
        assert answer["latency_ms"][device] <= limit_ms
    limits = {name: size["limit"] for name, size in answer["sizes"].items()}
    assert limits == {"parameters": 15_000, "macs": 7_000_000, "weight_bytes": 51_200}
    assert all(size["value"] <= size["limit"] for size in answer["sizes"].values())
    written = json.loads((tmp_path / "run/result.json").read_text())
    for key in (
        "latency_ms",
        "bound_ms",
        "interval_ms",
        "scale",
        "limit_ms",
        "feasible_ms",
        "shares",
        "surrogates",
    ):
        assert list(written[key]) == ["cortexA76", "myriadvpu"]
    result = read_result(tmp_path / "run/result.json")
    assert {name: record.latency_ms for name, record in result.latencies.items()} == answer["latency_ms"]
    page = (tmp_path / "run/report.html").read_text()
    assert "bytes of weights</th>" in page and '<th scope="row">myriadvpu</th>' in page
    text = quadnas("search", "--resume", tmp_path / "run").out
    for part in ("on myriadvpu, limit 2 ms", "parameters, limit 15,000", "bytes of weights, limit 51,200"):
        assert part in " ".join(text.split())


def front(space: Path) -> SearchSettings:
    return settings(
        space, max_latency_ms=4.0, tighter_limits_ms=(3.0, 1.6), schedule={**QUICK, "retrain_epochs": 1}
    )


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.name.startswith(("model", "re"))}


def test_a_front_goes_on_wherever_it_was_stopped(space: Path, tmp_path: Path) -> None:
    chosen = front(space)
    with RunFolder.create(tmp_path / "whole", chosen.model_dump(mode="json")) as folder:
        result = loop.search(prepare(chosen), folder, lambda event: None, StopFlag())
    points = read_front(chosen, tmp_path / "whole")
    assert [point.limit_ms for point in points] == [1.6, 3.0, 4.0]
    assert points[-1] == result
    for point in points:
        assert latency_ms(tmp_path / "whole" / point.files["model"], "cortexA76") <= point.limit_ms
        assert point.files["model"].removesuffix(".yaml") + ".safetensors" == point.files["inherited weights"]
    assert len(files(tmp_path / "whole")) == 3 * 4

    RunFolder.create(tmp_path / "stopped", chosen.model_dump(mode="json"))
    retrainings = 0
    for stop_at in (1, 2, 3, 99):
        stop, seen = StopFlag(), 0

        def observe(event: Event, stop: StopFlag = stop, stop_at: int = stop_at) -> None:
            nonlocal seen, retrainings
            if isinstance(event, PhaseStarted) and event.phase == "training":
                seen += 1
                retrainings += 1
                if seen == min(stop_at, 2):
                    stop.signal = signal.SIGTERM if stop_at < 99 else None

        with RunFolder.open(tmp_path / "stopped") as folder:
            try:
                loop.search(prepare(chosen), folder, observe, stop)
            except Interrupted:
                continue
    assert retrainings > 3
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_a_front_on_the_command_line(space: Path, tmp_path: Path) -> None:
    write(
        tmp_path / "s.yaml",
        f"space: {space}\ntrain_size: 32\ntrain_images: 75\nschedule: {json.dumps(QUICK)}\n",
    )
    answer = quadnas(
        "search", "--config", tmp_path / "s.yaml", "--out", tmp_path / "run", "--retrain-epochs", 0, "--json",
        "--device", "cortexA76", "--limits", "4ms,1.6ms",
    )  # fmt: skip
    assert answer.code == 0
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert [line["limit_ms"] for line in lines] == [1.6, 4.0]
    assert all(line["latency_ms"] <= line["limit_ms"] for line in lines)
    assert (tmp_path / "run/front.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "run/report.html").read_text()
    assert "Accuracy under every limit" in page and "<code>model-1.6ms.yaml</code>" in page
    again = quadnas("search", "--resume", tmp_path / "run").out
    assert "model-1.6ms.yaml" in again and "model.yaml" in again
    quadnas("search", "--device", "cortexA76", "--space", space, "--limits", "0.7ms,4ms").refused(
        3, "within 0.7 ms on cortexA76", "feasible range is 0.75"
    )
