"""Rows of nn-Meter's measured networks that contradict the rows around them, set right.

nn-Meter's generator wrote three things that the networks cannot have run: the input channels of ShuffleNetV2's
last convolution and of AlexNet's and VGG's fully connected layers, which are not those of the layer they read,
and stride 2 of GoogLeNet's pools inside a block, behind which the map is as large as before. The measurements
agree with the networks: on the Cortex-A76 the spread of the residuals falls from 3.6 to 2.4 % (ShuffleNetV2)
and from 3.7 to 3.3 % (AlexNet), also under coefficients that were fitted to the rows as they were.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from quadnas.latency.kernels import Kernel
from quadnas.latency.names import words

# (family, operator, operator right behind it, which reads it)
_READS = {
    ("shufflenetv2", "channel_shuffle", "conv"),
    ("alexnet", "global-pool", "fc"),
    ("alexnet", "fc", "fc"),
    ("vgg", "global-pool", "fc"),
    ("vgg", "fc", "fc"),
}
_POOLS_IN_BLOCKS = ("googlenet", "max-pool")
_FAMILIES = {"googlenet", *(family for family, _, _ in _READS)}


def repaired(family: str, kernels: Sequence[Kernel]) -> tuple[Kernel, ...]:
    """The kernels that a network of nn-Meter's data set really ran, given as its rows, in order."""
    found = list(kernels)
    if family not in _FAMILIES:
        return tuple(found)
    for row, (first, second) in enumerate(pairwise(kernels)):
        op, behind = words(first.op)[0], words(second.op)[0]
        if (family, op, behind) in _READS and second.cin != first.cout:
            found[row + 1] = replace(second, inputs=(first.cout,))
        if (family, op) == _POOLS_IN_BLOCKS and first.stride > 1 and second.h == first.h:
            found[row] = replace(first, stride=1)
    return tuple(found)
