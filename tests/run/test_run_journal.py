"""The journal: every event once, in order, whatever happened to its end."""

from pathlib import Path
from typing import Any

import pytest

from quadnas.errors import DataError
from quadnas.run.journal import Journal

EVENTS: list[dict[str, Any]] = [
    {"step": 1, "loss": 0.1},
    {"step": 2, "note": "λ\n\r\u2028"},
    {"phase": "end"},
]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "journal.jsonl")
    for event in EVENTS:
        journal.append(event)
    return journal


def test_events_come_back_in_order(journal: Journal, tmp_path: Path) -> None:
    assert journal.read() == EVENTS
    assert len((tmp_path / "journal.jsonl").read_bytes().splitlines()) == len(EVENTS)
    assert Journal(tmp_path / "none.jsonl").read() == []


@pytest.mark.parametrize(
    "tail", [b"", b"\x00\x00\x00", b'{"step": 4', b'{"step": 4}', b"\x00\x00\n", b"[1]\n"]
)
def test_any_torn_tail_is_repaired(journal: Journal, tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    ends = [position + 1 for position, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        survivors = sum(end <= cut for end in ends)
        if cut not in (0, *ends) and tail:
            continue  # a tail after half a line is just half a line
        path.write_bytes(whole[:cut] + tail)
        assert journal.read() == EVENTS[:survivors]  # a reader without the lock sees no half events either
        journal.repair()
        assert path.read_bytes() == whole[: ([0, *ends])[survivors]]
        journal.append({"new": 1})
        assert journal.read() == [*EVENTS[:survivors], {"new": 1}]


@pytest.mark.parametrize("line", [b"", b"\x00", b"[]", b'{"a": NaN}', b'{"a": 1', b"\xff", b"[" * 100_000])
def test_a_corrupt_line_in_the_middle_is_refused(journal: Journal, tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], line, *lines[1:]]))
    with pytest.raises(DataError, match="line 2"):
        journal.read()


def test_truncate_forgets_what_came_later(journal: Journal) -> None:
    position = journal.sync()
    assert position == journal.position
    journal.append({"late": 1})
    journal.truncate(position)
    assert journal.read() == EVENTS
    with pytest.raises(DataError, match="were committed"):
        journal.truncate(position + 1)


@pytest.mark.parametrize(("event", "error"), [({"loss": float("nan")}, ValueError), ({1: 2}, TypeError)])
def test_what_is_not_json_is_refused_whole(
    journal: Journal, event: dict[str, float], error: type[Exception]
) -> None:
    with pytest.raises(error):
        journal.append(event)
    assert journal.read() == EVENTS
