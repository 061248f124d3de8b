"""The state of module, optimiser and loss scale as plain named tensors, to be stored without pickle."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_PREFIX = "optimizer"
_SCALER = ("scale", "_growth_tracker")


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module, with a tensor that has several names under the first of them alone."""
    first = {name for tensors in (module.named_parameters(), module.named_buffers()) for name, _ in tensors}
    return {name: tensor for name, tensor in module.state_dict().items() if name in first}


def restore_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Take back what ``own_tensors`` gave."""
    module.load_state_dict({**module.state_dict(), **tensors})


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as ``optimizer/<parameter number>/<name>`` -> tensor, without settings."""
    state = optimizer.state_dict()["state"]
    return {
        f"{_PREFIX}/{number}/{name}": value
        for number, entry in state.items()
        for name, value in entry.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take back what ``optimizer_tensors`` gave, from a mapping that may hold other names too."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(_PREFIX + "/"):
            _, number, name = key.split("/")
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def scaler_tensors(scaler: torch.amp.GradScaler) -> dict[str, Tensor]:
    """What changes in a loss scaler; empty if it is disabled."""
    state = scaler.state_dict()
    return {name: torch.tensor(state[name]) for name in _SCALER if name in state}


def restore_scaler(scaler: torch.amp.GradScaler, tensors: Mapping[str, Tensor]) -> None:
    """Take back what ``scaler_tensors`` gave."""
    scaler.load_state_dict(scaler.state_dict() | {name: value.item() for name, value in tensors.items()})


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under ``prefix/name``."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def under_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse: those under ``prefix/``, without it."""
    return {
        name.removeprefix(prefix + "/"): t for name, t in tensors.items() if name.startswith(prefix + "/")
    }
