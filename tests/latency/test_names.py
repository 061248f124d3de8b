"""Fused names taken apart."""

import pytest

from quadnas.latency.kernels import Kernel
from quadnas.latency.names import parts, words


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Conv-BN-ReLU6", ("conv", "bn", "relu")),
        ("max-pool", ("max-pool",)),
        ("global-avg-pool", ("global-pool",)),
        ("gap", ("global-pool",)),
        ("conv-avg-pool-relu", ("conv", "avg-pool", "relu")),
        ("channel_shuffle", ("channel_shuffle",)),
        ("hard_swish", ("hswish",)),
        ("addrelu", ("add", "relu")),
        ("dense-relu", ("fc", "relu")),
    ],
)
def test_spellings_meet_in_one(name: str, expected: tuple[str, ...]) -> None:
    assert words(name) == expected


def test_what_follows_works_on_the_output_of_the_first() -> None:
    kernel = Kernel("conv-bn-hswish", 15, 9, (3,), 16, 3, 2, batch=4)
    assert parts(kernel, ("bn", "relu")) == [
        Kernel("conv", 15, 9, (3,), 16, 3, 2, batch=4),
        Kernel("hswish", 8, 5, (16,), 16, batch=4),
    ]


def test_a_device_without_folding_pays_for_every_operator() -> None:
    kernel = Kernel("dwconv-bn-relu", 8, 8, (16,), 16, 3)
    assert [part.op for part in parts(kernel, ())] == ["dwconv", "bn", "relu"]
    assert [part.op for part in parts(kernel, ("bn", "relu"))] == ["dwconv"]


def test_batch_norm_folds_into_weights_only() -> None:
    assert [part.op for part in parts(Kernel("add-bn-relu", 8, 8, (4, 4), 4), ("bn", "relu"))] == [
        "add",
        "bn",
    ]


def test_squeeze_and_excitation_reads_the_map_twice_and_passes_two_layers() -> None:
    found = parts(Kernel("se", 14, 14, (64,), 16, batch=2), ())
    assert found == [
        Kernel("avg-pool", 14, 14, (64,), 64, batch=2),
        Kernel("fc", 1, 1, (64,), 16, batch=2),
        Kernel("fc", 1, 1, (16,), 64, batch=2),
        Kernel("hsigmoid", 1, 1, (64,), 64, batch=2),
        Kernel("mul", 14, 14, (64, 64), 64, batch=2),
    ]
