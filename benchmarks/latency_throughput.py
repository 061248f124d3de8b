"""How fast networks are priced: from a table, kernel by kernel, from ONNX; beside nn-Meter's own path in one run.

nn-Meter's path is its own code (ONNX to graph, kernels, features, scikit-learn forests); the forests are stand-ins
of the official number of trees and samples (``--samples 1``), fitted anew at every run. Seconds are of the
processor (everything runs on one thread), so that other load on the machine hardly shows.

Run: python -m benchmarks.latency_throughput [--device cortexA76] [--space quadranet] [--samples 1] [--rounds 5]
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnx

from benchmarks.nnmeter_path import NnMeter, fitted
from benchmarks.timing import interleaved_medians, print_ratios
from quadnas.latency.devices import load_device
from quadnas.latency.model import LatencyModel, estimate
from quadnas.network import kernels_of, load_space
from quadnas.nnmeter.detector import detect
from quadnas.search.limits import price_space
from tests.golden.networks import mobilenet_v2
from tests.golden.onnx_networks import write_mobilenet_v2

NETWORKS = 1000
CLASSES, SIDE = 1000, 224


def spaces(name: str, model: LatencyModel, rounds: int) -> None:
    """The table of a space, and networks of the space from the table and kernel by kernel."""
    space = load_space(name)
    choose = random.Random(0)
    choices = [space.sample(choose) for _ in range(NETWORKS)]
    networks = [kernels_of(space.layers(choice, CLASSES), SIDE, model) for choice in choices]
    everything = [kernel for network in networks for kernel in network]
    table = price_space(space, model, CLASSES, SIDE)
    medians = interleaved_medians(
        {
            "table of the whole space": lambda: price_space(space, model, CLASSES, SIDE),
            "networks from the table": lambda: [table.of(choice) for choice in choices],
            "networks kernel by kernel, all at once": lambda: model.price(everything),
            "networks kernel by kernel, one at a time": lambda: [estimate(model, n) for n in networks],
        },
        rounds,
        clock=time.process_time,
    )
    print(
        f"{name} on {model.card.device}: {len(space.slots)} slots, {len(everything) / NETWORKS:.0f} kernels each"
    )
    for what, seconds in medians.items():
        rate = "" if what.startswith("table") else f"{NETWORKS / seconds:>12,.0f} networks/s"
        print(f"  {what:<44}{1e3 * seconds:>10.1f} ms{rate}")


def one_network(model: LatencyModel, samples: float, rounds: int) -> None:
    """MobileNetV2 from layers and from ONNX by us, from ONNX by nn-Meter; and many networks at once by both."""
    start = time.perf_counter()
    forests = fitted(model, samples)
    print(
        f"stand-in forests: {samples:g} of the official samples, fitted in {time.perf_counter() - start:.0f} s"
    )
    known = kernels_of(mobilenet_v2(), SIDE, model)
    reference = "QuadraNAS: layers to ms"
    with tempfile.TemporaryDirectory() as folder:
        path = write_mobilenet_v2(Path(folder, "mobilenet_v2.onnx"))
        theirs = NnMeter(model.card.fusion, forests)
        kernels = theirs.kernels(onnx.load(path))
        variants: dict[str, Callable[[], object]] = {
            "QuadraNAS: ONNX file to ms": lambda: estimate(model, detect(path, model.card.fusion).kernels),
            reference: lambda: estimate(model, kernels_of(mobilenet_v2(), SIDE, model)),
            "QuadraNAS: kernels to ms": lambda: estimate(model, known),
            "QuadraNAS: kernels of 100 networks to ms": lambda: model.price(known * 100),
            "nn-Meter: ONNX file to ms": lambda: theirs.predict(onnx.load(path)),
            "nn-Meter: kernels to ms": lambda: theirs.price(kernels),
            "nn-Meter: kernels of 100 networks to ms": lambda: theirs.price(kernels * 100),
        }
        medians = interleaved_medians(variants, rounds, warmup=1, clock=time.process_time)
    print_ratios("MobileNetV2:", medians, reference)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cortexA76")
    parser.add_argument("--space", default="quadranet")
    parser.add_argument("--samples", type=float, default=1.0, help="share of the official samples")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = load_device(arguments.device, batch=1)
    spaces(arguments.space, model, arguments.rounds)
    one_network(model, arguments.samples, arguments.rounds)


if __name__ == "__main__":
    main()
