"""The supernet in which the candidates of a slot share what does not depend on their kernels.

Wider candidates could share with narrower ones as well, and small kernels could be cropped out of large ones
(Single-Path NAS, arXiv 1904.02877; BigNAS, arXiv 2003.11142). But a quadratic branch shrinks with its kernel, and
cropped kernels rank networks worse: against 177 networks of benchmarks/ground_truth, Kendall's tau among those of
equal latency was 0.32 with them and 0.44 with kernels of each candidate's own, in two trainings each.
"""

from torch import Size, nn

from quadnas.blocks.base import block_of
from quadnas.space.layer import Layer
from quadnas.space.search_space import SearchSpace, Slot
from quadnas.supernet.supernet import Supernet, SupernetSlot


class EntangledSupernet(Supernet):
    """Candidates that differ in ``Block.entangled`` alone have their matrices of equal shape in common.

    Vectors (biases, norms, layer scales) and buffers are each candidate's own.
    """

    def __init__(self, space: SearchSpace, classes: int) -> None:
        super().__init__(space, classes)
        modules = (module for module in self.positions if isinstance(module, SupernetSlot))
        for module, slot in zip(modules, space.slots, strict=True):
            _entangle(module, slot)


def _entangle(module: SupernetSlot, slot: Slot) -> None:
    """Let candidates hold a matrix of the first of them that has it."""
    common: dict[tuple[str, str, Size], nn.Parameter] = {}
    for candidate, layer in zip(module.candidates, slot.candidates.values(), strict=True):
        group = _group(layer)
        for name, parameter in list(candidate.named_parameters()):
            if parameter.ndim < 2 or name.endswith("bias"):  # the quadratic operator has three biases in one
                continue
            owner, _, attribute = name.rpartition(".")
            one = common.setdefault((group, name, parameter.shape), parameter)
            setattr(candidate.get_submodule(owner), attribute, one)


def _group(layer: Layer) -> str:
    """What candidates that share weights agree in."""
    block, _ = block_of(layer)
    return f"{layer.block} {block.model_dump(mode='json', exclude=set(block.entangled))}"
