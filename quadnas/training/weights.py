"""Weights of a network as a safetensors file; nothing in it can execute."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from quadnas.errors import ConfigError, DataError


def weights_bytes(network: nn.Module, notes: Mapping[str, str]) -> bytes:
    """The file's bytes; ``notes`` go into its header (``train_size``: pixels the weights were trained at)."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return save(tensors, metadata=dict(notes))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file by name, and its notes.

    Raises ConfigError if the file is missing, DataError if it is corrupt.
    """
    if not path.is_file():
        raise ConfigError(f"no weights file {path}; quadnas train and quadnas export write one")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise DataError(
            f"{path} is not an intact safetensors file: {error}; restore it from a copy"
        ) from None


def load_weights(network: nn.Module, path: Path) -> dict[str, str]:
    """Put the weights of a file into the network and return its notes.

    Raises ConfigError if the file is missing or belongs to another network, DataError if it is corrupt.
    """
    tensors, notes = read_weights(path)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wrong := sorted(
        name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
    ):
        raise ConfigError(
            f"{path} belongs to another network: {len(wrong)} tensors differ, the first is {wrong[0]!r} "
            f"(expected {expected.get(wrong[0])}, found {found.get(wrong[0])}); give this model's own"
        )
    network.load_state_dict(tensors)
    return notes
