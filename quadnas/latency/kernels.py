"""The kernel: one fused operator with its shape, the unit in which latency is priced."""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Kernel:
    """One operator as a device runs it.

    ``op`` is a fused name in nn-Meter's spelling (``conv-bn-relu``, ``dwconv``, ``fc``, ``add``, ``mul``,
    ``layernorm``, ``gelu``, ``global-pool`` ...); ``h`` and ``w`` are the height and width of the input;
    ``inputs`` holds the channels of every input (one for most operators, several for ``add``, ``mul``,
    ``concat``); ``kernel`` is the side of the kernel. A fully connected layer over positions is a 1x1
    ``conv``; ``fc`` has h = w = 1. A ``matmul`` is ``h`` products, each of a (w, cin) with a (cin, cout) matrix.
    """

    op: str
    h: int
    w: int
    inputs: tuple[int, ...]
    cout: int
    kernel: int = 1
    stride: int = 1
    batch: int = 1

    @property
    def cin(self) -> int:
        """Input channels, summed over all inputs."""
        return sum(self.inputs)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolution, fully connected layer (bias not counted) or matmul; else 0."""
        dense = dict.fromkeys(("conv", "fc", "matmul"), self.cin)
        depth = (dense | {"dwconv": 1}).get(self.op.split("-")[0], 0)
        patches = self.kernel == self.stride  # an incomplete patch at the border is dropped
        height, width = (
            side // self.stride if patches else -(-side // self.stride) for side in (self.h, self.w)
        )
        return self.batch * height * width * self.cout * depth * self.kernel**2


@dataclass(frozen=True, slots=True)
class Operator:
    """One unfused operator of a block, with the operators whose output it reads.

    ``sources`` are positions in the same list; -1 is the input of the layer.
    """

    kernel: Kernel
    sources: tuple[int, ...] = ()


def chain(*parts: Sequence[Operator]) -> list[Operator]:
    """The parts in sequence: what a part reads as its input (-1) is the last operator of the parts before it."""
    operators: list[Operator] = []
    for part in parts:
        first = len(operators)
        operators += [
            replace(o, sources=tuple(first + (source if source >= 0 else -1) for source in o.sources))
            for o in part
        ]
    return operators
