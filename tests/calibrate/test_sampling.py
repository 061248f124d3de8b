"""The sampled kernels: ranges, shapes that fit together, and that the seed alone decides."""

import random
from collections import Counter

import numpy as np
import pytest

from quadnas.calibrate.own.sampling import (
    CONV_CHANNELS,
    DEPTHWISE_CHANNELS,
    DEPTHWISE_KERNELS,
    FAMILIES,
    MAX_MACS,
    Chain,
    finer_chain,
    prior_chain,
)
from quadnas.latency.kernels import Operator
from quadnas.testing.latency import multiply_accumulates

SAMPLES = 150


def chains(family: str, count: int = SAMPLES) -> list[Chain]:
    draw = random.Random(0)
    return [prior_chain(family, draw) for _ in range(count)]


def output(operator: Operator) -> tuple[int, int]:
    """(side, channels) of what an operator writes; no patch is incomplete."""
    kernel = operator.kernel
    if kernel.op == "global-pool":
        return 1, kernel.cout
    assert kernel.kernel != kernel.stride or kernel.h % kernel.stride == 0
    return -(-kernel.h // kernel.stride), kernel.cout


@pytest.mark.parametrize("family", FAMILIES)
def test_every_operator_reads_what_another_wrote(family: str) -> None:
    for chain in chains(family):
        assert chain[0].sources == (-1,)
        for position, operator in enumerate(chain[1:], start=1):
            kernel = operator.kernel
            assert len(operator.sources) == len(kernel.inputs)
            for source, channels in zip(operator.sources, kernel.inputs, strict=True):
                assert 0 <= source < position
                assert output(chain[source]) == (kernel.h, channels)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_operator_but_the_last_is_read(family: str) -> None:
    """A runtime would drop what nobody reads, and its time would be missing."""
    for chain in chains(family):
        read = {source for operator in chain for source in operator.sources}
        assert read == set(range(-1, len(chain) - 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_chain_can_be_measured_in_milliseconds(family: str) -> None:
    for chain in chains(family):
        assert sum(multiply_accumulates(operator.kernel) for operator in chain) <= MAX_MACS


def test_the_operators_of_our_blocks_are_all_sampled() -> None:
    found = Counter(
        operator.kernel.op for family in FAMILIES for chain in chains(family, 20) for operator in chain
    )
    assert set(found) == {"conv", "dwconv", "fc", "global-pool", "add", "mul", "gelu", "layernorm"}


def test_kernels_and_strides_are_those_of_the_prior() -> None:
    shapes = {
        (o.kernel.kernel, o.kernel.stride)
        for f in FAMILIES
        for c in chains(f)
        for o in c
        if o.kernel.op == "conv"
    }
    assert shapes == {(1, 1), (2, 2), (4, 4), *((k, s) for k in (3, 5, 7) for s in (1, 2))}
    sides = {o.kernel.kernel for c in chains("dwconv") for o in c if o.kernel.op == "dwconv"}
    assert sides == set(DEPTHWISE_KERNELS) == {3, 5, 7, 9, 11, 13}


@pytest.mark.parametrize(
    ("family", "channels"), [("layernorm", CONV_CHANNELS), ("dwconv", DEPTHWISE_CHANNELS)]
)
def test_channels_have_the_quantiles_of_the_prior(
    family: str, channels: tuple[tuple[float, int], ...]
) -> None:
    """On small maps, where nothing is too large to be measured."""
    found = [chain[0].kernel.cin for chain in chains(family, 3000) if chain[0].kernel.h <= 14]
    assert len(found) > 500
    for share, value in channels:
        assert np.quantile(found, share) == pytest.approx(value, rel=0.2, abs=8)
    assert np.mean([count % 8 == 0 for count in found]) == pytest.approx(0.78, abs=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_seed_alone_decides(family: str) -> None:
    assert chains(family, 5) == chains(family, 5)
    assert [prior_chain(family, random.Random(1)) for _ in range(3)] != chains(family, 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_finer_samples_lie_beside_the_bad_point(family: str) -> None:
    draw = random.Random(0)
    (bad,) = chains(family, 1)
    largest = max(operator.kernel.cout for operator in bad)
    smallest = min(operator.kernel.cout for operator in bad)
    finer = [finer_chain(family, bad, draw) for _ in range(20)]
    assert {chain[0].kernel.h for chain in finer} == {bad[0].kernel.h}
    couts = [operator.kernel.cout for chain in finer for operator in chain]
    assert 0.5 * smallest - 1 <= min(couts)
    assert max(couts) <= 1.2 * largest + 1
    assert len(set(finer)) > 1
