"""The swap probe: beside a weight step, what another candidate in some slots would change the loss by."""

from collections.abc import Sequence

import torch
from torch import Tensor

from quadnas.ops.statistics import statistics_kept
from quadnas.supernet.supernet import Supernet, SupernetSlot


class SwapProbe:
    """Runs a path, and where ``others`` has another candidate that one, on ``images`` spread over the batch.

    Equal parts of a batch, with as many images each, thus probe what the whole would.

    After the backward pass of a loss that is a mean over the batch, ``changes`` () is for every slot
    <dL/do, o_other - o_active> of those images, scaled to the batch: to first order, the change of that loss by
    the swap in this slot alone; 0 without a swap. The probe keeps no graph, and of outputs only that difference.
    """

    def __init__(self, supernet: Supernet, others: Sequence[int], images: int) -> None:
        self._supernet, self._others, self._images = supernet, others, images
        self._found: dict[int, Tensor] = {}

    def __call__(self, images: Tensor, path: Sequence[int]) -> Tensor:
        """(N, 3, H, W) -> logits (N, classes) of ``path``."""
        slots = iter(enumerate(path))
        x = images.contiguous(memory_format=torch.channels_last)
        for position in self._supernet.positions:
            if isinstance(position, SupernetSlot):
                slot, choice = next(slots)
                x = self._probed(x, position, slot, choice)
            else:
                x = position(x)
        return x

    def _probed(self, x: Tensor, position: SupernetSlot, slot: int, choice: int) -> Tensor:
        y: Tensor = position(x, choice)
        other = self._others[slot]
        if other == choice:
            return y
        with torch.no_grad(), statistics_kept(position.candidates[other]):
            difference = position(self._part(x), other) - self._part(y)

        def credit(gradient: Tensor) -> None:
            share = len(difference) / len(gradient)
            self._found[slot] = (self._part(gradient).float() * difference.float()).sum() / share

        y.register_hook(credit)
        return y

    def _part(self, values: Tensor) -> Tensor:
        return values[:: max(1, len(values) // self._images)][: self._images]

    def changes(self) -> Tensor:
        """(slots,) on the CPU, double."""
        changes = torch.zeros(len(self._others), dtype=torch.float64)
        if self._found:
            changes[list(self._found)] = torch.stack(list(self._found.values())).double().cpu()
        return changes
