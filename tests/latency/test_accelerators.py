"""The accelerators against figures that their makers published, and what they must not claim to know."""

from collections.abc import Sequence

import pytest

from quadnas.latency.devices import load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import Coverage, estimate
from quadnas.network import kernels_of
from tests.golden.networks import mobilenet_v2


def total_ms(device: str, network: Sequence[Kernel]) -> float:
    found = estimate(load_device(device), network).latency_ms
    assert found is not None
    return found


def mobilenet_v1() -> list[Kernel]:
    """MobileNet at width 1.0 and 224 x 224 (arXiv 1704.04861, table 1)."""
    kernels = [Kernel("conv-bn-relu6", 224, 224, (3,), 32, 3, 2)]
    side, width = 112, 32
    wider = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
    for channels, stride in wider:
        kernels.append(Kernel("dwconv-bn-relu6", side, side, (width,), width, 3, stride))
        side //= stride
        kernels.append(Kernel("conv-bn-relu6", side, side, (width,), channels))
        width = channels
    return [*kernels, Kernel("global-pool", 7, 7, (1024,), 1024), Kernel("fc", 1, 1, (1024,), 1000)]


def resnet50() -> list[Kernel]:
    """ResNet-50 at 224 x 224 with the stride in the 3x3 convolution: 4.1 billion multiply-accumulates."""
    kernels = [
        Kernel("conv-bn-relu", 224, 224, (3,), 64, 7, 2),
        Kernel("max-pool", 112, 112, (64,), 64, 3, 2),
    ]
    side, width = 56, 64
    for narrow, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        wide = 4 * narrow
        for block in range(blocks):
            stride = 2 if narrow > 64 and not block else 1
            kernels.append(Kernel("conv-bn-relu", side, side, (width,), narrow))
            kernels.append(Kernel("conv-bn-relu", side, side, (narrow,), narrow, 3, stride))
            if not block:
                kernels.append(Kernel("conv-bn", side, side, (width,), wide, 1, stride))
            side //= stride
            kernels.append(Kernel("conv-bn", side, side, (narrow,), wide))
            kernels.append(Kernel("add-relu", side, side, (wide, wide), wide))
            width = wide
    return [*kernels, Kernel("global-pool", 7, 7, (2048,), 2048), Kernel("fc", 1, 1, (2048,), 1000)]


@pytest.mark.parametrize(
    ("network", "images_per_second"),
    [("mobilenet_v2", 268.07), ("mobilenet_v1", 326.62), ("resnet50", 77.58)],
)
def test_the_zcu102_is_as_fast_as_amd_says(network: str, images_per_second: float) -> None:
    """Vitis AI 2.5 Model Zoo, one thread on 3 x B4096 at 281 MHz, end to end; none of these was fitted."""
    kernels = {
        "mobilenet_v1": mobilenet_v1,
        "mobilenet_v2": lambda: kernels_of(mobilenet_v2(), 224, load_device("zcu102")),
        "resnet50": resnet50,
    }[network]()
    assert total_ms("zcu102", kernels) == pytest.approx(1000 / images_per_second, rel=0.1)


@pytest.mark.parametrize("device", ["tpuv2", "tpuv3", "vck190", "zcu102"])
def test_mobilenet_v2_is_made_of_kernels_that_were_measured(device: str) -> None:
    """Normalisation and activation run inside the convolutions, as in the measured networks."""
    model = load_device(device)
    found = estimate(model, kernels_of(mobilenet_v2(), 224, model))
    assert found.shares["exact"] == 1


def test_a_tpu_v3_core_is_faster_than_a_v2_core() -> None:
    per_image = {}
    for device in ("tpuv2", "tpuv3"):
        model = load_device(device)
        per_image[device] = total_ms(device, kernels_of(mobilenet_v2(), 224, model)) / model.batch
    assert 1.2 < per_image["tpuv2"] / per_image["tpuv3"] < 2.7  # 2.7: the ratio of their matrix units


@pytest.mark.parametrize("device", ["vck190", "zcu102"])
@pytest.mark.parametrize("op", ["layernorm", "gelu", "conv-gelu", "swish", "softmax"])
def test_what_a_dpu_cannot_run_has_no_price(device: str, op: str) -> None:
    price = load_device(device).price([Kernel(op, 14, 14, (64,), 64)])[0]
    assert price.coverage is Coverage.UNCOVERED and device in price.reason


@pytest.mark.parametrize("device", ["rtx3090", "tpuv2", "tpuv3", "vck190", "zcu102"])
def test_a_product_of_two_maps_is_a_stand_in(device: str) -> None:
    """Only squeeze-and-excitation was measured, whose product has a vector on one side."""
    model = load_device(device)
    price = model.price([Kernel("mul", 14, 14, (64, 64), 64, batch=model.batch)])[0]
    assert price.coverage is Coverage.SURROGATE and price.surrogate_error >= 0.5
    assert "squeeze-and-excitation" in price.reason


@pytest.mark.parametrize("device", ["rtx3090", "tpuv2", "tpuv3"])
def test_another_batch_than_the_measured_is_extrapolated(device: str) -> None:
    measured = load_device(device).card.measured_batch
    assert load_device(device).batch == measured
    kernel = Kernel("conv-bn-relu", 14, 14, (80,), 480, batch=measured)
    assert load_device(device).price([kernel])[0].coverage is Coverage.EXACT
    half = load_device(device, measured // 2)
    price = half.price([Kernel("conv-bn-relu", 14, 14, (80,), 480, batch=measured // 2)])[0]
    assert price.coverage is Coverage.SURROGATE and f"batch {measured // 2}" in price.reason
