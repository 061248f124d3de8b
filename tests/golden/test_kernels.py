"""The kernels of MobileNetV2 and of a QuadraNet on every device, line by line and counted by hand.

The text files are written anew by ``python -m tests.golden.test_kernels``; what they say is checked here against
counts that follow from the published tables and the devices' rules, and in ``tests/nnmeter`` against nn-Meter.
"""

from collections import Counter
from pathlib import Path

import pytest

from quadnas.latency.devices import load_device
from quadnas.latency.fusion import fuse
from quadnas.latency.kernels import Kernel
from quadnas.network import operators_of
from quadnas.space.layer import Layer
from tests.golden.networks import MOBILENET_V2, mobilenet_v2, quadranet_xs

FOLDER = Path(__file__).parent
NETWORKS = {"mobilenet_v2": mobilenet_v2(), "quadranet_xs": quadranet_xs()}
DEVICES = ("cortexA76", "adreno640", "myriadvpu", "a100")
CASES = [(network, device) for network in NETWORKS for device in DEVICES]


def fused(layers: tuple[Layer, ...], device: str) -> list[Kernel]:
    return fuse(operators_of(layers, 224), load_device(device).card.fusion)


def text(kernels: list[Kernel]) -> str:
    """One kernel per line: name, map, input channels, output channels, kernel side, stride."""
    return "".join(
        f"{k.op:<18}{k.h:>4}x{k.w:<4}{'+'.join(map(str, k.inputs)):>10}{k.cout:>6}{k.kernel:>3}{k.stride:>3}\n"
        for k in kernels
    )


@pytest.mark.parametrize(("network", "device"), CASES)
def test_kernels_are_the_golden_ones(network: str, device: str) -> None:
    expected = (FOLDER / f"{network}-{device}.txt").read_text()
    assert text(fused(NETWORKS[network], device)) == expected


def test_mobilenet_v2_counted_by_hand() -> None:
    """17 inverted residuals, 16 of them expanded; stem and last convolution; 10 of them keep the shape."""
    blocks = sum(repeats for _, _, repeats, _ in MOBILENET_V2)
    expanded = blocks - 1
    residual = sum(repeats - 1 for _, _, repeats, _ in MOBILENET_V2)
    assert (blocks, residual) == (17, 10)
    activated, ends = expanded + 2, {"global-pool": 1, "fc": 1}
    separate = {
        "conv-bn-relu6": activated, "dwconv-bn-relu6": blocks, "conv-bn": blocks, "add": residual, **ends
    }  # fmt: skip
    on_gpu = {
        "conv-bn-relu6": activated, "dwconv-bn-relu6": blocks, "conv-bn": blocks - residual,
        "conv-bn-add": residual, **ends,
    }  # fmt: skip
    unfused = {
        "conv": activated + blocks, "dwconv": blocks, "bn": activated + 2 * blocks, "relu6": activated + blocks,
        "add": residual, **ends,
    }  # fmt: skip
    expected = {"cortexA76": separate, "myriadvpu": separate, "adreno640": on_gpu, "a100": unfused}
    for device, counts in expected.items():
        assert Counter(kernel.op for kernel in fused(NETWORKS["mobilenet_v2"], device)) == counts, device
    assert {sum(expected[device].values()) for device in ("cortexA76", "myriadvpu")} == {64}
    assert sum(expected["adreno640"].values()) == 54


def test_quadranet_counted_by_hand() -> None:
    """Two blocks in each of four stages; on the GPU all three sums of a block vanish into a convolution.

    The linear term takes the sum of the quadratic form and then the residual one, FC2 takes its residual.
    """
    blocks, stages = 8, 4
    ends = {"global-pool": 1, "fc": 1}
    common = {"layernorm": 2 * blocks + stages + 1, "mul": blocks, "gelu": blocks, **ends}
    separate = {**common, "dwconv": 3 * blocks, "conv": 2 * blocks + stages, "add": 3 * blocks}
    on_gpu = {
        **common, "dwconv": 2 * blocks, "dwconv-add-add": blocks, "conv": blocks + stages, "conv-add": blocks,
    }  # fmt: skip
    for device in DEVICES:
        expected = on_gpu if device == "adreno640" else separate
        found = Counter(kernel.op for kernel in fused(NETWORKS["quadranet_xs"], device))
        assert found == expected, device


def test_the_shapes_of_the_first_and_the_last_kernels() -> None:
    """Read off table 2 of MobileNetV2: 224x224x3 to 112x112x32 ... 7x7x320 to 7x7x1280, 1x1x1000."""
    kernels = fused(NETWORKS["mobilenet_v2"], "cortexA76")
    assert kernels[:4] == [
        Kernel("conv-bn-relu6", 224, 224, (3,), 32, 3, 2),
        Kernel("dwconv-bn-relu6", 112, 112, (32,), 32, 3, 1),
        Kernel("conv-bn", 112, 112, (32,), 16),
        Kernel("conv-bn-relu6", 112, 112, (16,), 96),
    ]
    assert kernels[-3:] == [
        Kernel("conv-bn-relu6", 7, 7, (320,), 1280),
        Kernel("global-pool", 7, 7, (1280,), 1280),
        Kernel("fc", 1, 1, (1280,), 1000),
    ]


if __name__ == "__main__":
    for network, device in CASES:
        (FOLDER / f"{network}-{device}.txt").write_text(text(fused(NETWORKS[network], device)))
