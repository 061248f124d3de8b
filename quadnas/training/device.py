"""Where networks are computed."""

import torch

from quadnas.errors import MachineError
from quadnas.ops.quadratic import quadratic_backend
from quadnas.training.launch import launched


def compute_device() -> torch.device:
    """The GPU if there is one: one for each process that torchrun starts on a machine.

    Raises MachineError if there are more processes than GPUs.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    index, count = launched().local_rank, torch.cuda.device_count()
    if index >= count:
        raise MachineError(
            f"every process trains on a GPU of its own, and process {index} of this machine (counted from 0) "
            f"finds {count}; start torchrun with --nproc-per-node {count} at most"
        )
    return torch.device("cuda", index)


def arithmetic(device: torch.device) -> dict[str, object]:
    """What decides the last bits of a result there, for a run that must go on exactly as it began."""
    return {"back-end of the quadratic convolution": quadratic_backend(device.type, torch.float32).name}
