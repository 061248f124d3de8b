"""Binary gates: what every candidate of a slot is worth to a path, with one path in memory.

Source: ProxylessNAS (arXiv 1812.00332) section 3.2 and the released code's ``full_v2`` mode.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quadnas.ops.statistics import statistics_kept
from quadnas.supernet.supernet import Supernet, SupernetSlot


class GateGradients(NamedTuple):
    """Loss () and logits (N, classes) of a path; ``gates`` (slots, most candidates): dL/dg, double, on the CPU."""

    loss: Tensor
    logits: Tensor
    gates: Tensor


class _Visit(NamedTuple):
    """A slot with what a path brought there, which candidate it took, and what came out."""

    slot: SupernetSlot
    x: Tensor
    choice: int
    output: Tensor


def gate_gradients(
    supernet: Supernet,
    images: Tensor,
    path: Sequence[int],
    asked: Tensor,
    loss: Callable[[Tensor], Tensor],
) -> GateGradients:
    """The gradients of gates that are 1 along ``path`` and 0 elsewhere: dL/dg_k = <dL/dout, o_k(x)>.

    ``asked`` (slots, most candidates) bool: whose gates; the others stand as 0. Only the path keeps a graph: every
    other candidate runs forward once its slot's gradient is known. No weight and no statistic changes.
    """
    with frozen(supernet):
        logits, visits = _trace(supernet, images, path)
        task = loss(logits)
        gradients = torch.autograd.grad(task, [visit.output for visit in visits])
        values = [
            _inner(gradient, visit.output if k == visit.choice else visit.slot(visit.x, k))
            for visit, gradient, row in zip(visits, gradients, asked, strict=True)
            for k in row.nonzero()[:, 0].tolist()
        ]
    gates = torch.zeros(asked.shape, dtype=torch.float64)
    gates[asked] = torch.stack(values).double().cpu()
    return GateGradients(task.detach(), logits.detach(), gates)


def _inner(gradient: Tensor, output: Tensor) -> Tensor:
    """Their inner product (), in fp32 at least, whatever precision the forward pass has."""
    precise = torch.promote_types(gradient.dtype, torch.float32)
    return (gradient.to(precise) * output.detach().to(precise)).sum()


def _trace(supernet: Supernet, images: Tensor, path: Sequence[int]) -> tuple[Tensor, list[_Visit]]:
    """Logits and the visits of all slots; the graph begins at the output of the first of them."""
    choices = iter(path)
    visits = []
    x = images.contiguous(memory_format=torch.channels_last)
    for position in supernet.positions:
        if isinstance(position, SupernetSlot):
            choice, before = next(choices), x.detach()
            y = position(x, choice)
            x = (
                y.view_as(y) if y.requires_grad else y.detach().requires_grad_()
            )  # an identity gives its input
            visits.append(_Visit(position, before, choice, x))
        else:
            x = position(x)
    return x, visits


@contextmanager
def frozen(supernet: nn.Module) -> Iterator[None]:
    """No weight gradients and no change of normalisation statistics: an architecture step trains no weight."""
    parameters = [p for p in supernet.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        with statistics_kept(supernet):
            yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
