"""One checkpoint: a tensor file and the sealed manifest that makes it valid."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quadnas.run.atomic import commit_bytes
from quadnas.run.sealed import seal, unseal
from quadnas.run.tensors import load_tensors, save_tensors

FORMAT = "quadnas-checkpoint/1"
FILE_NAME = re.compile(r"checkpoint-([0-9]{6,})\.(json|safetensors)")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a run had committed: its search step, tensors (contiguous, CPU) and JSON state.

    ``number`` counts the commits of the run from 1; ``journal_bytes`` is the journal's length at the commit;
    ``notice`` says which newer checkpoints were skipped as corrupt (empty: none).
    """

    number: int
    step: int
    journal_bytes: int
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]
    notice: str = ""


def manifest_path(folder: Path, number: int) -> Path:
    """Where checkpoint ``number`` has its manifest."""
    return folder / f"checkpoint-{number:06d}.json"


def tensors_path(folder: Path, number: int) -> Path:
    """Where checkpoint ``number`` has its tensors."""
    return folder / f"checkpoint-{number:06d}.safetensors"


def numbers(folder: Path) -> list[int]:
    """The numbers of all checkpoints with a manifest, oldest first, valid or not."""
    matches = (FILE_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in matches if match and match[2] == "json")


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Commit a checkpoint: the tensors first, then the manifest, whose appearance is the commit.

    Raises MachineError, TypeError or ValueError (a state that is not JSON, a dtype that is not stored).
    """
    body = {
        "format": FORMAT,
        "number": checkpoint.number,
        "step": checkpoint.step,
        "journal_bytes": checkpoint.journal_bytes,
        "state": checkpoint.state,
    }
    tensors = save_tensors(tensors_path(folder, checkpoint.number), checkpoint.tensors)
    commit_bytes(manifest_path(folder, checkpoint.number), seal({**body, "tensors": tensors}))


def load_checkpoint(folder: Path, number: int) -> Checkpoint:
    """Checkpoint ``number`` exactly as it was saved; raises ValueError if any part is missing or differs."""
    manifest = manifest_path(folder, number)
    try:
        body = unseal(manifest.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{manifest.name}: {error}") from error
    if (body.get("format"), body.get("number")) != (FORMAT, number):
        raise ValueError(
            f"{manifest.name} belongs to something else: {body.get('format')} number {body.get('number')}"
        )
    return Checkpoint(
        number=number,
        step=body["step"],
        journal_bytes=body["journal_bytes"],
        tensors=load_tensors(tensors_path(folder, number), body["tensors"]),
        state=body["state"],
    )
