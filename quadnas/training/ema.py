"""The exponential moving average of a network's weights, which is evaluated in their place."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Tensors = tuple[Tensor, ...] | list[Tensor]


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of the network whose ``update_parameters`` makes each number ``decay`` old and the rest new.

    The first update copies. Statistics of batch normalisation are averaged too.
    """
    return AveragedModel(network, multi_avg_fn=_average(decay), use_buffers=True)


def _average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(old: Tensors, new: Tensors, count: Tensor | int) -> None:
        if old[0].is_floating_point():
            average(old, new, count)
        else:  # torch rounds the average down: an index 5 becomes 4
            for a, b in zip(old, new, strict=True):
                a.copy_(b)

    return update
