"""nn-Meter's own path from an ONNX model to milliseconds, with stand-ins for its forests of the official size.

The official forests are a download of more than a gigabyte; how long they take depends on the number of trees and
samples alone, so forests of the same size are fitted to kernels sampled as nn-Meter does, priced by our model.
"""

import json
import logging
import os
import random
import tempfile
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from sklearn.ensemble import RandomForestRegressor

from quadnas.latency.kernels import Kernel
from quadnas.latency.model import LatencyModel
from quadnas.nnmeter.detector import rule_file

SIDES = (1, 7, 8, 13, 14, 27, 28, 32, 56, 112, 224)


@dataclass(frozen=True)
class Size:
    """Trees and samples of one official forest (nn-Meter's settings for the CPU predictor)."""

    trees: int
    samples: int


OFFICIAL = {
    "conv-bn-relu": Size(320, 10_000),
    "dwconv-bn-relu": Size(240, 5_000),
    "add": Size(570, 3_000),
    "fc": Size(370, 3_000),
    "global-avgpool": Size(370, 3_000),
}


def sampled(name: str, choose: random.Random) -> Kernel:
    """A kernel drawn from the ranges of nn-Meter's prior."""
    side = choose.choice(SIDES)
    cin, cout = (round(2 ** choose.uniform(3, 11)) for _ in range(2))
    size, stride = choose.choice((1, 3, 5, 7)), choose.choice((1, 2))
    return {
        "conv-bn-relu": Kernel("conv-bn-relu", side, side, (cin,), cout, size, stride),
        "dwconv-bn-relu": Kernel("dwconv-bn-relu", side, side, (cin,), cin, size, stride),
        "add": Kernel("add", side, side, (cin, cin), cin),
        "fc": Kernel("fc", 1, 1, (cin,), cout),
        "global-avgpool": Kernel("global-pool", 7, 7, (cin,), cin),
    }[name]


def features(kernel: Kernel) -> list[float]:
    """The feature vector that nn-Meter feeds its forests."""
    h, cin, cout, k, s = kernel.h, kernel.inputs[0], kernel.cout, kernel.kernel, kernel.stride
    first = kernel.op.split("-")[0]
    if first in ("conv", "dwconv"):
        params = cout * (k * k * (cin if first == "conv" else 1) + 1)
        return [h, cin, cout, k, s, 2 * (h / s) ** 2 * params / 2e6, params / 1e6]
    if first == "fc":
        flops = (2 * cin + 1) * cout
        return [cin, cout, flops / 2e6, flops / 1e6]
    return [h, cin, cin] if first == "add" else [1, cin]


def fitted(model: LatencyModel, share: float) -> dict[str, Any]:
    """One forest per kernel of MobileNetV2, with ``share`` of the official samples and all of the trees."""
    choose = random.Random(0)
    forests = {}
    for name, size in OFFICIAL.items():
        kernels = [sampled(name, choose) for _ in range(max(10, round(share * size.samples)))]
        prices = [price.latency_ms for price in model.price(kernels)]
        forest = RandomForestRegressor(size.trees, n_jobs=-1, random_state=0)
        forests[name] = forest.fit([features(kernel) for kernel in kernels], prices)
        forest.n_jobs = None  # as nn-Meter's are pickled
    return forests


class NnMeter:
    """nn-Meter's own predictor with given forests; what it writes goes to a temporary folder."""

    def __init__(self, rules: tuple[tuple[str, str], ...], forests: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as home, mock.patch.dict(os.environ, HOME=home):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._prediction = import_module("nn_meter.predictor.prediction.predict_by_kernel")
                predictor = import_module("nn_meter.predictor.nn_meter_predictor")
                self._converter = import_module("nn_meter.ir_converter")
            logging.getLogger("nn-Meter").setLevel(logging.ERROR)
            file = Path(home, "rules.json")
            file.write_text(json.dumps(rule_file(rules)))
            self._predictor = predictor.nnMeterPredictor(forests, str(file))

    def predict(self, model: Any) -> float:
        """An ONNX model to milliseconds."""
        return float(self._predictor.predict(model, "onnx"))

    def kernels(self, model: Any) -> list[Any]:
        """The kernels that it finds in an ONNX model."""
        self._predictor.kd.load_graph(self._converter.model_to_graph(model, "onnx"))
        return list(self._predictor.kd.get_kernels())

    def price(self, kernels: list[Any]) -> float:
        """Features and forests alone."""
        return float(self._prediction.nn_predict(self._predictor.kernel_predictors, kernels))
