"""The supernet with entangled weights: a smaller candidate computes with a part of a larger one's weights.

Sources: Single-Path NAS (arXiv 1904.02877) for kernels inside kernels, BigNAS (arXiv 2003.11142) for channels in
channels. Matrices and kernels are shared; vectors (biases, norms, layer scales) and buffers are each candidate's
own, so that each finds its own scale: a quadratic branch shrinks with its kernel.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from quadnas.blocks.base import block_of
from quadnas.space.layer import Layer
from quadnas.space.search_space import SearchSpace, Slot
from quadnas.supernet.supernet import Supernet, SupernetSlot


class _Borrower(NamedTuple):
    """A module whose parameter ``attribute`` is the part of this ``shape`` of what ``shared`` has for ``key``."""

    module: nn.Module
    attribute: str
    key: str
    shape: torch.Size


class EntangledSlot(SupernetSlot):
    """One slot: candidates that differ in nested arguments alone (``Block.nested``) share weights."""

    def __init__(self, slot: Slot) -> None:
        super().__init__(slot)
        self.shared = nn.ParameterDict()
        self._borrowers = [
            self._share(module, _group(layer))
            for module, layer in zip(self.candidates, slot.candidates.values(), strict=True)
        ]

    def forward(self, x: Tensor, choice: int) -> Tensor:
        """(N, C, H, W) -> the output of one candidate."""
        for borrower in self._borrowers[choice].values():
            # behind the back of nn.Module, which takes no view for a parameter; functional_call would be as slow
            # as the small maps of the last stages
            vars(borrower.module)[borrower.attribute] = self._lent(borrower)
        output: Tensor = self.candidates[choice](x)
        return output

    def weights_of(self, choice: int) -> dict[str, Tensor]:
        """The state of one candidate as the plain block has it."""
        lent = {name: self._lent(borrower) for name, borrower in self._borrowers[choice].items()}
        return {**self.candidates[choice].state_dict(), **lent}

    def _lent(self, borrower: _Borrower) -> Tensor:
        return part(self.shared[borrower.key], borrower.shape)

    def _share(self, module: nn.Module, group: str) -> dict[str, _Borrower]:
        """Take the shared parameters out of ``module``; returns who borrows them, by their name in it."""
        borrowers = {}
        for name, parameter in list(module.named_parameters()):
            if parameter.ndim < 2 or name.endswith("bias"):  # the quadratic operator has three biases in one
                continue
            key = f"{group}/{name}".replace(".", "/")
            if key not in self.shared or parameter.numel() > self.shared[key].numel():
                self.shared[key] = parameter
            owner, _, attribute = name.rpartition(".")
            borrower = _Borrower(module.get_submodule(owner), attribute, key, parameter.shape)
            delattr(borrower.module, attribute)
            borrowers[name] = borrower
        return borrowers


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
