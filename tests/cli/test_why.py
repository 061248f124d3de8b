"""``quadnas why``, and what a search leaves for those who watch it."""

import html
import json
from pathlib import Path

import pytest

from quadnas.run.folder import RunFolder
from tests.cli.command import quadnas, write
from tests.cli.conftest import Found


def test_every_slot_is_explained(found: Found) -> None:
    result = json.loads((found.run / "result.json").read_text())
    steps = [
        event
        for event in map(json.loads, (found.run / "journal.jsonl").read_text().splitlines())
        if event["event"] == "ArchitectureStep"
    ]
    answer = quadnas("why", found.run, "--json").json
    assert list(answer) == ["1.1", "2.1", "3.1", "4.1"]
    for name, slot, row in zip(answer, result["slots"], steps[-1]["probabilities"], strict=True):
        candidates = answer[name]["candidates"]
        assert [one["latency_ms"] for one in candidates] == slot["latency_ms"]
        assert [one["probability"] for one in candidates] == row
        assert [one["fits"] for one in candidates] == slot["fits"]
        assert [one["history"][-1] for one in candidates] == row
        assert len(candidates[0]["history"]) == min(len(steps), 48)
        (chosen,) = (one for one in candidates if one["chosen"])
        assert chosen["network_ms"] == pytest.approx(result["latency_ms"])
        assert answer[name]["latency_share"] == pytest.approx(chosen["latency_ms"] / result["latency_ms"])
        assert answer[name]["why"].startswith(chosen["name"])


def test_one_slot_has_a_table(found: Found) -> None:
    whole, one = quadnas("why", found.run), quadnas("why", found.run, "2.1")
    assert [line.split()[0] for line in whole.out.splitlines() if not line.startswith(" ")] == [
        "1.1", "2.1", "3.1", "4.1"
    ]  # fmt: skip
    sentence, table = one.out.split("\n\n")
    assert sentence in whole.out
    names = [line.split("  ")[0] for line in table.splitlines()]
    assert names == ["candidate", "quadra k3 e2", "quadra k5 e2", "identity"]
    assert max(map(len, one.out.splitlines())) < 100


def test_what_cannot_be_explained_is_refused(place: Path, found: Found) -> None:
    quadnas("why", found.run, "9.9").refused(2, "no slot '9.9'", "1.1, 2.1, 3.1, 4.1")
    quadnas("why", "nowhere").refused(2, "nowhere is not a run folder")
    RunFolder.create(place / "trained", {"model": {}})
    quadnas("why", "trained").refused(2, "was not written by quadnas search")
    unfinished = place / "unfinished"
    unfinished.mkdir()
    write(unfinished / "run.json", (found.run / "run.json").read_text())
    quadnas("why", unfinished).refused(2, "has found no network yet", f"--resume {unfinished}")


def test_the_report_tells_why(found: Found) -> None:
    page = " ".join(html.unescape((found.run / "report.html").read_text(encoding="utf-8")).split())
    for slot in quadnas("why", found.run, "--json").json.values():
        assert slot["why"].replace("+-", "±") in page


def test_scalars_for_tensorboard_are_the_journal_s(place: Path, found: Found) -> None:
    """On a finished run the option changes nothing; on a new one every step is there."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    assert quadnas("search", "--resume", found.run, "--tensorboard", "--json").json == found.answer.json
    assert not (found.run / "tensorboard").exists()
    given = ("--config", found.config, "--out", "run", "--retrain-epochs", "0", "--tensorboard", "--json")
    assert quadnas("search", *given).code == 0
    events = [json.loads(line) for line in (place / "run" / "journal.jsonl").read_text().splitlines()]
    for phase in ("warm-up", "search"):
        scalars = accumulator.EventAccumulator(str(place / "run" / "tensorboard" / phase))
        scalars.Reload()
        steps = [event for event in events if event["event"] == "WeightStep" and event["phase"] == phase]
        assert len(steps) > 1
        found_losses = [(one.step, one.value) for one in scalars.Scalars("loss")]
        assert found_losses == [(event["step"], pytest.approx(event["loss"])) for event in steps]
