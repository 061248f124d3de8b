"""Whatever happens to the files of a run, a load returns exactly what was committed, or says no."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from quadnas.errors import DataError
from quadnas.run.checkpoint import Checkpoint
from quadnas.run.folder import RunFolder

SETTINGS = {"device": "cortexA76", "limit_ms": 300.0, "seed": 1}
FILES = ["run.json"] + [f"checkpoint-00000{n}.{kind}" for n in (2, 3) for kind in ("json", "safetensors")]


def tensors_at(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {"w": torch.randn(4, 3, generator=generator), "done": torch.tensor(step == 3)}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with RunFolder.create(tmp_path / "run", SETTINGS) as folder:
        for step in (1, 2, 3):
            folder.journal.append({"step": step})
            folder.commit(tensors_at(step), {"loss": 1 / step, "order": [3, 1, 2]}, step=step)
    return tmp_path / "run"


def is_as_committed(checkpoint: Checkpoint) -> bool:
    expected = tensors_at(checkpoint.step)
    return (
        checkpoint.tensors.keys() == expected.keys()
        and all(torch.equal(checkpoint.tensors[name], expected[name]) for name in expected)
        and checkpoint.state == {"loss": 1 / checkpoint.step, "order": [3, 1, 2]}
    )


def flip_bit(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def zero_fill(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    end = rng.randint(start + 1, len(data))
    return data[:start] + bytes(end - start) + data[end:]


def append(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.randint(1, 20))


def scramble(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(len(data))


DAMAGES: list[Callable[[bytes, random.Random], bytes]] = [flip_bit, truncate, zero_fill, append, scramble]


def damage(run: Path, rng: random.Random) -> None:
    kind = rng.randrange(8)
    names = rng.sample(FILES, 2)
    one, other = (run / name for name in names)
    if kind < 5:
        for path in (one, other)[: rng.randint(1, 2)]:
            path.write_bytes(DAMAGES[kind](path.read_bytes(), rng))
    elif kind == 5:
        one_bytes = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(one_bytes)
    elif kind == 6:
        one.write_bytes(other.read_bytes())
    else:
        one.unlink()


def test_none_of_1000_corruptions_is_accepted(run: Path) -> None:
    """The oracle knows the original bytes: a checkpoint is returned if and only if its files have them."""
    original = {name: (run / name).read_bytes() for name in FILES}
    folder, rng = RunFolder.open(run), random.Random(0)
    fallbacks = refusals = 0
    for _ in range(1000):
        damage(run, rng)
        same = {n: (run / n).exists() and (run / n).read_bytes() == original[n] for n in FILES}
        intact = [n for n in (2, 3) if same[f"checkpoint-00000{n}.json"]]
        intact = [n for n in intact if same[f"checkpoint-00000{n}.safetensors"]]
        if intact:
            checkpoint = folder.latest()
            assert checkpoint is not None
            assert checkpoint.step == max(intact)
            assert is_as_committed(checkpoint)
            skipped = max(intact) == 2 and (run / "checkpoint-000003.json").exists()
            assert bool(checkpoint.notice) == skipped
            fallbacks += skipped
        else:
            with pytest.raises(DataError, match="no intact checkpoint"):
                folder.latest()
            refusals += 1
        if (run / "run.json").exists() and not same["run.json"]:
            with pytest.raises(DataError, match=r"run\.json"):
                RunFolder.open(run)
        for name, data in original.items():
            (run / name).write_bytes(data)
    assert fallbacks > 200
    assert refusals > 50


def test_a_fallback_can_be_continued(run: Path) -> None:
    path = run / "checkpoint-000003.safetensors"
    path.write_bytes(flip_bit(path.read_bytes(), random.Random(1)))
    with RunFolder.open(run) as folder:
        checkpoint = folder.latest()
        assert checkpoint is not None
        assert "checkpoint-000003.safetensors does not match its checksum" in checkpoint.notice
        assert "fell back to checkpoint 2 (step 2)" in checkpoint.notice
        folder.rewind(checkpoint)
        assert folder.journal.read() == [{"step": 1}, {"step": 2}]
        folder.commit(tensors_at(3), {"loss": 1 / 3, "order": [3, 1, 2]}, step=3)
        again = folder.latest()
    assert again is not None
    assert (again.step, again.notice) == (3, "")
    assert is_as_committed(again)
    path.unlink()  # the good one before is still there: the corrupt one did not count as one of the two kept
    once_more = RunFolder.open(run).latest()
    assert once_more is not None
    assert once_more.step == 2


def test_a_journal_that_lost_committed_events_is_noticed(run: Path) -> None:
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (run / "journal.jsonl").write_bytes(b"".join(lines[:2]))
    checkpoint = RunFolder.open(run).latest()
    assert checkpoint is not None
    assert checkpoint.step == 2
    assert "journal.jsonl has lost events" in checkpoint.notice
    (run / "journal.jsonl").unlink()
    with pytest.raises(DataError, match="lost events"):
        RunFolder.open(run).latest()
