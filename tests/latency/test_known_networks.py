"""Networks built by hand against what was measured, published or expected of them."""

from collections.abc import Callable, Sequence

import pytest

from quadnas.latency.devices import load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import estimate


def kernel(op: str, side: int, cin: int, cout: int, size: int = 1, stride: int = 1) -> Kernel:
    return Kernel(op, side, side, (cin, cin) if op.startswith(("add", "mul")) else (cin,), cout, size, stride)


def total_ms(device: str, network: Sequence[Kernel]) -> float:
    found = estimate(load_device(device), network).latency_ms
    assert found is not None
    return found


def resnet18() -> list[Kernel]:
    kernels = [kernel("conv-bn-relu", 224, 3, 64, 7, 2), kernel("max-pool", 112, 64, 64, 3, 2)]
    side, width = 56, 64
    for stage, channels in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            kernels.append(kernel("conv-bn-relu", side, width, channels, 3, stride))
            if stride == 2:
                kernels.append(kernel("conv-bn", side, width, channels, 1, 2))
            side //= stride
            kernels += [
                kernel("conv-bn", side, channels, channels, 3),
                kernel("add-relu", side, channels, channels),
            ]
            width = channels
    return [*kernels, kernel("global-pool", 7, 512, 512), kernel("fc", 1, 512, 1000)]


def mobilenet_v3_small() -> list[Kernel]:
    """Table 2 of Howard et al. 2019 (kernel, expansion, out, squeeze, activation, stride)."""
    rows = [
        (3, 16, 16, True, "relu", 2),
        (3, 72, 24, False, "relu", 2),
        (3, 88, 24, False, "relu", 1),
        (5, 96, 40, True, "hswish", 2),
        (5, 240, 40, True, "hswish", 1),
        (5, 240, 40, True, "hswish", 1),
        (5, 120, 48, True, "hswish", 1),
        (5, 144, 48, True, "hswish", 1),
        (5, 288, 96, True, "hswish", 2),
        (5, 576, 96, True, "hswish", 1),
        (5, 576, 96, True, "hswish", 1),
    ]
    kernels = [kernel("conv-bn-hswish", 224, 3, 16, 3, 2)]
    side, width = 112, 16
    for size, wide, out, squeeze, activation, stride in rows:
        if wide != width:
            kernels.append(kernel(f"conv-bn-{activation}", side, width, wide))
        kernels.append(kernel(f"dwconv-bn-{activation}", side, wide, wide, size, stride))
        side //= stride
        if squeeze:
            kernels.append(kernel("se", side, wide, wide // 4))
        kernels.append(kernel("conv-bn", side, wide, out))
        if stride == 1 and out == width:
            kernels.append(kernel("add", side, out, out))
        width = out
    head = [kernel("conv-bn-hswish", 7, 96, 576), kernel("global-pool", 7, 576, 576)]
    return [*kernels, *head, kernel("conv-hswish", 1, 576, 1024), kernel("fc", 1, 1024, 1000)]


@pytest.mark.parametrize(
    ("device", "network", "measured_ms", "tolerance"),
    [
        # Measured by nn-Meter's authors (their default models); neither family was in the fitted networks.
        ("cortexA76", resnet18, 208.1, 0.05),
        ("cortexA76", mobilenet_v3_small, 12.5, 0.15),
        ("myriadvpu", resnet18, 19.9, 0.10),
    ],
)
def test_networks_of_families_that_were_never_fitted(
    device: str, network: Callable[[], list[Kernel]], measured_ms: float, tolerance: float
) -> None:
    assert total_ms(device, network()) == pytest.approx(measured_ms, rel=tolerance)


def quadranet36(width: int, size: int, expansion: int) -> list[Kernel]:
    """QuadraNet36 at 224: depths 3, 3, 27, 3, every block with one kernel size and one expansion."""
    kernels = [kernel("conv", 224, 3, width, 4, 4)]
    side, channels = 56, width
    for stage, depth in enumerate((3, 3, 27, 3)):
        if stage:
            kernels += [
                kernel("layernorm", side, channels, channels),
                kernel("conv", side, channels, 2 * channels, 2, 2),
            ]
            side, channels = side // 2, 2 * channels
        wide = expansion * channels
        block = [
            kernel("layernorm", side, channels, channels),
            *[kernel("dwconv", side, channels, channels, size)] * 3,
            kernel("mul", side, channels, channels),
            *[kernel("add", side, channels, channels)] * 3,
            kernel("layernorm", side, channels, channels),
            kernel("conv", side, channels, wide),
            kernel("gelu", side, wide, wide),
            kernel("conv", side, wide, channels),
        ]
        kernels += block * depth
    return [*kernels, kernel("global-pool", 7, channels, channels), kernel("fc", 1, channels, 1000)]


@pytest.mark.parametrize(
    ("width", "size", "expansion", "low_ms", "high_ms"),
    [(64, 7, 4, 500, 600), (64, 3, 2, 240, 300), (32, 7, 4, 165, 205), (16, 7, 4, 60, 85)],
)
def test_quadranet_on_the_a76_lies_where_independent_fits_put_it(
    width: int, size: int, expansion: int, low_ms: float, high_ms: float
) -> None:
    found = estimate(load_device("cortexA76"), quadranet36(width, size, expansion))
    assert found.latency_ms is not None and low_ms <= found.latency_ms <= high_ms
    assert found.shares["surrogate"] < 0.12 and found.shares["uncovered"] == 0
