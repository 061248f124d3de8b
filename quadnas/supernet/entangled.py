"""The supernet in which the candidates of a slot share what does not depend on their kernels.

Wider candidates could share with narrower ones as well, and small kernels could be cropped out of large ones
(Single-Path NAS, arXiv 1904.02877; BigNAS, arXiv 2003.11142). But a quadratic branch shrinks with its kernel, and
cropped kernels rank networks worse: against 177 networks of benchmarks/ground_truth, Kendall's tau among those of
equal latency was 0.32 with them and 0.44 with kernels of each candidate's own, in two trainings each.
"""

from collections.abc import Iterator

from torch import Size, nn

from quadnas.blocks.base import block_of
from quadnas.space.layer import Layer
from quadnas.space.search_space import Slot
from quadnas.supernet.supernet import Supernet


class EntangledSupernet(Supernet):
    """Candidates that differ in ``Block.entangled`` alone have their matrices of equal shape in common.

    Vectors (biases, norms, layer scales) and buffers are each candidate's own.
    """

    def _candidates(self, slot: Slot) -> Iterator[nn.Module]:
        """Each holds a matrix of the first that has it; what it drops is free before the next one is made."""
        common: dict[tuple[str, str, Size], nn.Parameter] = {}
        for module, layer in zip(super()._candidates(slot), slot.candidates.values(), strict=True):
            group = _group(layer)
            for name, matrix in _matrices(module):
                owner, _, attribute = name.rpartition(".")
                one = common.setdefault((group, name, matrix.shape), matrix)
                setattr(module.get_submodule(owner), attribute, one)
            yield module


def _matrices(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Its parameters by name but the vectors; the quadratic operator has three biases in one."""
    return [
        (name, parameter)
        for name, parameter in module.named_parameters()
        if parameter.ndim > 1 and not name.endswith("bias")
    ]


def _group(layer: Layer) -> str:
    """What candidates that share weights agree in."""
    block, _ = block_of(layer)
    return f"{layer.block} {block.model_dump(mode='json', exclude=set(block.entangled))}"
