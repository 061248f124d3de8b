"""Rows that contradict their neighbours are set right, in the families where that is known, and nowhere else."""

import pytest

from quadnas.calibrate.repair import repaired
from quadnas.latency.kernels import Kernel

SHUFFLED = Kernel("channel_shuffle", 7, 7, (602,), 602)
LAST = Kernel("conv-bn-relu", 7, 7, (742,), 1433)
POOLED, WIDE, NARROW = (
    Kernel(op, 1, 1, (c,), o)
    for op, c, o in (("global-pool", 512, 512), ("fc-relu", 4096, 4000), ("fc", 4096, 1000))
)
POOL = Kernel("max-pool", 28, 28, (192,), 192, 3, 2)


def test_the_last_convolution_of_shufflenet_reads_the_shuffled_channels() -> None:
    assert repaired("shufflenetv2", [SHUFFLED, LAST]) == (
        SHUFFLED,
        Kernel("conv-bn-relu", 7, 7, (602,), 1433),
    )


@pytest.mark.parametrize("family", ["alexnet", "vgg"])
def test_fully_connected_layers_are_a_chain(family: str) -> None:
    found = repaired(family, [POOLED, WIDE, NARROW])
    assert [(kernel.cin, kernel.cout) for kernel in found] == [(512, 512), (512, 4000), (4000, 1000)]


def test_a_pool_behind_which_the_map_is_as_large_has_stride_1() -> None:
    same, smaller = (Kernel("conv-bn-relu", side, side, (192,), 32) for side in (28, 14))
    assert [kernel.stride for kernel in repaired("googlenet", [POOL, same])] == [1, 1]
    assert repaired("googlenet", [POOL, smaller]) == (POOL, smaller)


def test_rows_that_agree_and_other_families_stay() -> None:
    agree = (SHUFFLED, Kernel("conv-bn-relu", 7, 7, (602,), 1433))
    assert repaired("shufflenetv2", agree) == agree
    for rows in ((SHUFFLED, LAST), (POOLED, WIDE, NARROW), (POOL, Kernel("conv", 28, 28, (192,), 32))):
        assert repaired("my own", rows) == rows
    parallel = (Kernel("conv", 28, 28, (192,), 32), Kernel("conv", 28, 28, (192,), 64))
    assert repaired("googlenet", parallel) == parallel
