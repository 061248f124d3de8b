"""The kernel: one fused operator with its shape, the unit in which latency is priced."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kernel:
    """One operator as a device runs it.

    ``op`` is a fused name in nn-Meter's spelling (``conv-bn-relu``, ``dwconv``, ``fc``, ``add``, ``mul``,
    ``layernorm``, ``gelu``, ``global-pool`` ...); ``h`` and ``w`` are the height and width of the input;
    ``inputs`` holds the channels of every input (one for most operators, several for ``add``, ``mul``,
    ``concat``); ``kernel`` is the side of the kernel. A fully connected layer over positions is a 1x1
    ``conv``; ``fc`` has h = w = 1.
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


@dataclass(frozen=True, slots=True)
class Operator:
    """One unfused operator of a block, with the operators whose output it reads.

    ``sources`` are positions in the same list; -1 is the input of the layer.
    """

    kernel: Kernel
    sources: tuple[int, ...] = ()
