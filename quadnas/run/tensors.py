"""Tensors <-> a safetensors file, streamed: at most one tensor is copied at a time."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from quadnas.run.atomic import commit_bytes

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Commit ``tensors`` (any strides, any device) to ``path``.

    Returns the file's ``sha256`` and ``size`` (bytes), which ``load_tensors`` wants back.

    The library's own writer wants a copy of every channels-last or GPU tensor, all at once, and leaves
    temporary files under names of its own behind a kill.
    Raises TypeError for a dtype outside the table, MachineError.
    """
    digest, size = hashlib.sha256(), 0

    def counted() -> Iterator[memoryview]:
        nonlocal size
        for piece in _pieces(tensors):
            digest.update(piece)
            size += len(piece)
            yield piece

    commit_bytes(path, counted())
    return {"sha256": digest.hexdigest(), "size": size}


def load_tensors(path: Path, expected: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors that ``save_tensors`` wrote to ``path`` when it returned ``expected``.

    They are contiguous, on the CPU, and private: changing them leaves the file alone.
    Raises ValueError if the file is missing, unreadable or differs from what was written.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected["sha256"] or path.stat().st_size != expected["size"]:
            raise ValueError(f"{path.name} does not match its checksum")
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path.name} cannot be read ({error})") from error


def _pieces(tensors: Mapping[str, torch.Tensor]) -> Iterator[memoryview]:
    """The file as the safetensors README lays it down: header length (u64, little endian), header, data."""
    header: dict[str, Any] = {}
    end = 0
    # Widest elements first, so that every tensor is aligned in the file and can be mapped.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    for name, tensor in ordered:
        if tensor.dtype not in _DTYPES or name == "__metadata__":
            raise TypeError(f"a checkpoint cannot hold the tensor {name!r} of {tensor.dtype}")
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for _, tensor in ordered:
        yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
