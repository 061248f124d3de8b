"""The supernet with entangled weights: a smaller candidate computes with a part of a larger one's weights.

Sources: Single-Path NAS (arXiv 1904.02877) for kernels inside kernels, BigNAS (arXiv 2003.11142) for channels in
channels. Matrices and kernels are shared; vectors (biases, norms, layer scales) and buffers are each candidate's
own, so that each finds its own scale: a quadratic branch shrinks with its kernel.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quadnas.blocks.base import block_of
from quadnas.space.layer import Layer
from quadnas.space.search_space import SearchSpace, Slot
from quadnas.supernet.supernet import Supernet, SupernetSlot, candidate


class EntangledSlot(SupernetSlot):
    """One slot: candidates that differ in nested arguments alone (``Block.nested``) share weights."""

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(candidate(layer) for layer in slot.candidates.values())
        self.shared = nn.ParameterDict()
        self._parts = [
            self._share(module, _group(layer))
            for module, layer in zip(self.candidates, slot.candidates.values(), strict=True)
        ]

    def forward(self, x: Tensor, choice: int) -> Tensor:
        """(N, C, H, W) -> the output of one candidate."""
        output: Tensor = functional_call(self.candidates[choice], self._shared_by(choice), (x,))
        return output

    def weights_of(self, choice: int) -> dict[str, Tensor]:
        """The state of one candidate as the plain block has it."""
        return {**self.candidates[choice].state_dict(), **self._shared_by(choice)}

    def _share(self, module: nn.Module, group: str) -> dict[str, tuple[str, torch.Size]]:
        """Take the shared parameters out of ``module``; returns name in it -> (key of ``shared``, shape)."""
        parts = {}
        for name, parameter in list(module.named_parameters()):
            if parameter.ndim < 2 or name.endswith("bias"):  # the quadratic operator has three biases in one
                continue
            key = f"{group}/{name}".replace(".", "/")
            if key not in self.shared or parameter.numel() > self.shared[key].numel():
                self.shared[key] = parameter
            owner, _, attribute = name.rpartition(".")
            module.get_submodule(owner).register_parameter(attribute, None)
            parts[name] = key, parameter.shape
        return parts

    def _shared_by(self, choice: int) -> dict[str, Tensor]:
        return {name: part(self.shared[key], shape) for name, (key, shape) in self._parts[choice].items()}


class EntangledSupernet(Supernet):
    """Stem, down-sampling and head are shared by all paths; the candidates of a slot share their weights."""

    def __init__(self, space: SearchSpace, classes: int) -> None:
        super().__init__(space, classes, EntangledSlot)


def part(whole: Tensor, shape: torch.Size) -> Tensor:
    """The view of ``shape`` in ``whole``: the centre of a kernel (last two of four or more axes), else the first.

    (3, C, 1, 7, 7) -> (3, C, 1, 3, 3) takes the centre crop; (4C, C) -> (2C, C) the first outputs.
    """
    for axis, (size, wanted) in enumerate(zip(whole.shape, shape, strict=True)):
        if wanted < size:
            centred = whole.ndim >= 4 and axis >= whole.ndim - 2
            whole = whole.narrow(axis, (size - wanted) // 2 if centred else 0, wanted)
    return whole


def _group(layer: Layer) -> str:
    """What the candidates that share weights have in common."""
    block, _ = block_of(layer)
    own = block.model_dump(mode="json", exclude=set(block.nested))
    return "-".join([layer.block, *(f"{key}={value}" for key, value in own.items())]).replace(".", "_")
