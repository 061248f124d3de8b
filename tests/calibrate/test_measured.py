"""Reading measured networks, and which of them are held out."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from quadnas.calibrate.measured import MeasuredNetwork, read_measured
from quadnas.errors import ConfigError, DataError
from quadnas.latency.card import Reading
from quadnas.latency.kernels import Kernel

GOOD: dict[str, Any] = {
    "id": "one",
    "family": "toys",
    "latency_ms": {"cpu": 1.5, "gpu": None},
    "kernels": [
        ["conv-relu", 224, 3, 64, 11, 4],
        ["concat", 56, [64, 32], 96, 1, 1],
        ["fc", 1, 96, 10, 1, 1],
    ],
}


def write(path: Path, *lines: object) -> Path:
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["measured.jsonl", "measured.jsonl.gz"])
def test_rows_become_square_kernels_of_the_given_batch(tmp_path: Path, name: str) -> None:
    (network,) = read_measured(write(tmp_path / name, GOOD), "cpu", batch=4)
    assert (network.id, network.family, network.latency_ms) == ("one", "toys", 1.5)
    assert network.kernels == (
        Kernel("conv-relu", 224, 224, (3,), 64, 11, 4, 4),
        Kernel("concat", 56, 56, (64, 32), 96, 1, 1, 4),
        Kernel("fc", 1, 1, (96,), 10, 1, 1, 4),
    )


def test_networks_without_the_column_are_left_out(tmp_path: Path) -> None:
    other = {**GOOD, "id": "two", "latency_ms": {"gpu": 2}}
    path = write(tmp_path / "m.jsonl", GOOD, other)
    assert [network.id for network in read_measured(path, "gpu", 1)] == ["two"]
    with pytest.raises(ConfigError, match="'gpx'; did you mean 'gpu'"):
        read_measured(path, "gpx", 1)


@pytest.mark.parametrize(
    "bad",
    [
        "{\n",
        "[]\n",
        "[" * 100_000 + "\n",
        {key: value for key, value in GOOD.items() if key != "kernels"},
        {**GOOD, "latency_ms": {"cpu": 0}},
        {**GOOD, "latency_ms": {"cpu": -1.0}},
        {**GOOD, "latency_ms": {"cpu": float("nan")}},
        {**GOOD, "latency_ms": {"cpu": float("inf")}},
        {**GOOD, "latency_ms": {"cpu": "1"}},
        {**GOOD, "latency_ms": {"cpu": True}},
        {**GOOD, "latency_ms": 3},
        {**GOOD, "kernels": [["conv", 7, 3, 4, 1]]},
        {**GOOD, "kernels": [["conv", 7, 0, 4, 1, 1]]},
        {**GOOD, "kernels": [["conv", 7, 3.5, 4, 1, 1]]},
        {**GOOD, "kernels": [["conv", 7, True, 4, 1, 1]]},
        {**GOOD, "kernels": [["conv", 7, [], 4, 1, 1]]},
        {**GOOD, "kernels": [["conv", 7, [[3]], 4, 1, 1]]},
        {**GOOD, "kernels": [["conv", 10**9, 3, 4, 1, 1]]},
        {**GOOD, "kernels": [[7, 7, 3, 4, 1, 1]]},
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, bad: object) -> None:
    with pytest.raises(DataError, match=r"m\.jsonl, line 2: "):
        read_measured(write(tmp_path / "m.jsonl", GOOD, bad), "cpu", 1)


def test_a_broken_archive_and_a_missing_file(tmp_path: Path) -> None:
    whole = write(tmp_path / "m.jsonl.gz", *[GOOD] * 50).read_bytes()
    (tmp_path / "m.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(DataError, match="cannot read"):
        read_measured(tmp_path / "m.jsonl.gz", "cpu", 1)
    with pytest.raises(ConfigError, match="no file"):
        read_measured(tmp_path / "none.jsonl", "cpu", 1)


def test_ms_per_image_become_ms_per_batch(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", GOOD)
    (network,) = read_measured(path, "cpu", 64, Reading(per_image=True))
    assert network.latency_ms == 1.5 * 64
    assert {kernel.batch for kernel in network.kernels} == {64}


def test_networks_run_at_another_size_keep_their_place_in_the_split(tmp_path: Path) -> None:
    """256 -> 224 makes 128, 64, 32, 16 and 8 into 112, 56, 28, 14 and 7; vectors stay vectors."""
    sides = (256, 128, 64, 32, 16, 8, 1)
    rows = [["conv", side, 3, 8, 3, 1] for side in sides]
    path = write(tmp_path / "m.jsonl", {**GOOD, "kernels": rows})
    (as_written,) = read_measured(path, "cpu", 1)
    (network,) = read_measured(path, "cpu", 1, Reading(side=(256, 224)))
    assert [kernel.h for kernel in network.kernels] == [224, 112, 56, 28, 14, 7, 1]
    assert [kernel.w for kernel in network.kernels] == [224, 112, 56, 28, 14, 7, 1]
    assert [kernel.h for kernel in as_written.kernels] == list(sides)
    assert network.number == as_written.number


def test_networks_that_kept_pace_with_their_feed_are_left_out(tmp_path: Path) -> None:
    """1.5 ms per image is 3 ms per batch of 2: the limit itself is still the feed's."""
    slow = {**GOOD, "id": "slow", "latency_ms": {"cpu": 1.6}}
    path = write(tmp_path / "m.jsonl", GOOD, slow)
    found = read_measured(path, "cpu", 2, Reading(per_image=True, paced_ms=3.0))
    assert [network.id for network in found] == ["slow"]
    with pytest.raises(ConfigError, match="'cpu' above 10 ms"):
        read_measured(path, "cpu", 2, Reading(paced_ms=10.0))


def test_held_out_is_a_property_of_the_multiset_of_kernels() -> None:
    """The rule of ``MeasuredNetwork.held_out``, spelled out once more from its text."""
    outcomes = []
    for cout in range(1, 200):
        kernels = (Kernel("fc", 1, 1, (8,), 10), Kernel("conv-bn", 7, 7, (3, 5), cout, 3, 2))
        lines = sorted([f"conv-bn 7 7 3+5 {cout} 3 2", "fc 1 1 8 10 1 1"])
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        expected = int(digest, 16) % 5 == 0
        assert MeasuredNetwork("a", "f", kernels, 1.0).held_out is expected
        assert MeasuredNetwork("b", "g", kernels[::-1], 2.0).held_out is expected
        outcomes.append(expected)
    assert 0.1 < sum(outcomes) / len(outcomes) < 0.3
