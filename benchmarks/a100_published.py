"""The A100's latency model against published throughput of whole networks.

Run: python -m benchmarks.a100_published WHOLE_MODELS_CSV [--device a100] [--batch 128]
"""

import argparse
import csv
from collections.abc import Iterable
from pathlib import Path

from scipy.stats import spearmanr

from quadnas.latency.devices import load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import LatencyModel, estimate
from quadnas.network import kernels_of
from quadnas.space.layer import Layer

QUADRANETS = {
    "quadranet25_t": (64, (2, 3, 18, 2)),
    "quadranet36_t": (64, (3, 3, 27, 3)),
    "quadranet36_s": (96, (3, 3, 27, 3)),
    "quadranet25_b": (128, (2, 3, 18, 2)),
    "quadranet36_b": (128, (3, 3, 27, 3)),
}
CONVNEXTS = {
    "convnext_tiny": (96, (3, 3, 9, 3), 7),
    "convnext_small": (96, (3, 3, 27, 3), 7),
    "convnext_base": (128, (3, 3, 27, 3), 7),
    "convnext_tiny (dw 7x7)": (96, (3, 3, 9, 3), 7),
    "convnext_tiny_k5 (dw 5x5)": (96, (3, 3, 9, 3), 5),
    "convnext_tiny_k3 (dw 3x3)": (96, (3, 3, 9, 3), 3),
}


def quadranet(model: LatencyModel, width: int, depths: Iterable[int], kernel: int = 7) -> list[Kernel]:
    """The kernels of a QuadraNet at 224, from our blocks."""
    layers = [Layer(block="patchify", channels_in=3, channels_out=width, stride=4)]
    for stage, depth in enumerate(depths):
        if stage:
            layers.append(Layer(block="downsample", channels_in=width, channels_out=2 * width, stride=2))
            width *= 2
        block = Layer(
            block="quadra",
            channels_in=width,
            channels_out=width,
            arguments={"kernel": kernel, "expansion": 4},
        )
        layers += [block] * depth
    layers.append(Layer(block="classifier", channels_in=width, channels_out=1000))
    return kernels_of(layers, 224, model)


def convnext(batch: int, width: int, depths: Iterable[int], size: int) -> list[Kernel]:
    """The kernels of a ConvNeXt at 224 (arXiv 2201.03545), layer scale being one of them."""

    def kernel(op: str, channels: int, cout: int = 0, side: int = 1, stride: int = 1) -> Kernel:
        inputs = (channels,) * (2 if op == "add" else 1)
        return Kernel(op, height, height, inputs, cout or channels, side, stride, batch)

    height = 224
    found = [kernel("conv", 3, width, 4, 4)]
    height = 56
    found.append(kernel("layernorm", width))
    for stage, depth in enumerate(depths):
        if stage:
            found += [kernel("layernorm", width), kernel("conv", width, 2 * width, 2, 2)]
            height, width = height // 2, 2 * width
        found += [
            kernel("dwconv", width, side=size),
            kernel("layernorm", width),
            kernel("conv", width, 4 * width),
            kernel("gelu", 4 * width),
            kernel("conv", 4 * width, width),
            kernel("scale", width),
            kernel("add", width),
        ] * depth
    found.append(kernel("global-pool", width))
    height = 1
    return [*found, kernel("layernorm", width), kernel("fc", width, 1000)]


def published(path: Path) -> dict[str, float]:
    """Images per second by model."""
    with path.open(newline="") as file:
        return {row["model"]: float(row["images_per_second"]) for row in csv.DictReader(file)}


def predicted(model: LatencyModel) -> dict[str, float]:
    """Images per second by model, at the batch of ``model``."""
    networks = {name: quadranet(model, *shape) for name, shape in QUADRANETS.items()}
    networks |= {name: convnext(model.batch, *shape) for name, shape in CONVNEXTS.items()}
    found = {name: estimate(model, kernels).latency_ms for name, kernels in networks.items()}
    return {name: 1e3 * model.batch / ms for name, ms in found.items() if ms}


def main() -> None:
    """Print predicted beside published throughput, their ratios, and the rank correlation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--device", default="a100")
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    found = predicted(load_device(arguments.device, arguments.batch))
    known = published(arguments.table)
    print(f"{'images per second':<28}{'predicted':>10}{'published':>10}{'ratio':>8}")
    for name, speed in found.items():
        print(f"{name:<28}{speed:>10.0f}{known[name]:>10.0f}{speed / known[name]:>8.2f}")
    rank = spearmanr([found[name] for name in found], [known[name] for name in found]).statistic
    print(f"rank correlation {rank:.3f}")


if __name__ == "__main__":
    main()
