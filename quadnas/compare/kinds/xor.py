"""XOR by one neuron: a quadratic one against a linear one and a small network, on four noisy clusters.

Source: QuadraNet (arXiv 2311.17956), figure 2. The clusters stand at (+-1, +-1); a point's class is whether the
signs of its cluster differ. The best possible rule is the signs of the point itself.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Annotated, Any, Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.compare.experiment import (
    KINDS,
    Arm,
    ArmName,
    Bench,
    Experiment,
    Record,
    Unit,
    Work,
    distinct,
)
from quadnas.compare.networks import Count
from quadnas.compare.table import Column, Table, Value
from quadnas.data.order import stable_seed

Positive = Annotated[float, Field(gt=0)]
_REACH, _PIXELS = 2.6, 121


class QuadraticNeuron(nn.Module):
    """y = (wa.x + ba)(wb.x + bb) + wc.x + bc: points (N, 2) -> logits (N,); without factor biases ba = bb = 0."""

    def __init__(self, *, factor_biases: bool) -> None:
        super().__init__()
        self.factor_a = nn.Linear(2, 1, bias=factor_biases)
        self.factor_b = nn.Linear(2, 1, bias=factor_biases)
        self.linear = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2) -> (N,)."""
        y: Tensor = self.factor_a(x) * self.factor_b(x) + self.linear(x)
        return y.squeeze(1)


class SignRule(nn.Module):
    """The best rule for clusters at (+-1, +-1) of equal spread, which makes the Bayes error; nothing to learn."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2) -> (N,)."""
        return -x.prod(1)


def build(neuron: str, hidden: int) -> nn.Module:
    """A freshly initialised classifier: points (N, 2) -> logits (N,)."""
    match neuron:
        case "linear":
            return nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
        case "quadratic":
            return QuadraticNeuron(factor_biases=True)
        case "quadratic-no-factor-bias":
            return QuadraticNeuron(factor_biases=False)
        case "bayes":
            return SignRule()
    activation = nn.ReLU() if neuron == "mlp-relu" else nn.Tanh()
    return nn.Sequential(nn.Linear(2, hidden), activation, nn.Linear(hidden, 1), nn.Flatten(0))


def clusters(points: int, sigma: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``points`` points (N, 2), a quarter of them around each corner of (+-1, +-1), and their classes 0/1 (N,)."""
    corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    corner = corners[torch.arange(points) % 4]
    noise = torch.randn(points, 2, generator=generator)
    return corner + sigma * noise, (corner.prod(1) < 0).float()


def bayes_accuracy(sigma: float) -> float:
    """How often the signs of a point are those of its cluster, or both wrong: 1 - 2e(1 - e), e = P(one wrong)."""
    wrong = 0.5 * math.erfc(1 / (sigma * math.sqrt(2)))
    return 1 - 2 * wrong * (1 - wrong)


class XorArm(Arm):
    """``hidden``: width of the network's hidden layer."""

    neuron: Literal["linear", "quadratic", "quadratic-no-factor-bias", "mlp-relu", "mlp-tanh", "bayes"]
    hidden: Count = 10


@KINDS.register("xor")
class Xor(Experiment):
    """Full-batch Adam on ``train_points`` points from ``starts`` initialisations, tested on ``test_points``."""

    arms: Mapping[ArmName, XorArm]
    sigmas: Annotated[tuple[Positive, ...], Field(min_length=1), AfterValidator(distinct)]
    train_points: Count = 400
    test_points: Count = 20_000
    rate: Positive = 0.05
    steps: Count = 250
    starts: Count = 6
    seed: Annotated[int, Field(ge=0)] = 0

    def prepare(self) -> "XorWork":
        """Nothing to load."""
        return XorWork(self)

    def units(self) -> tuple[Unit, ...]:
        """Every arm at every spread."""
        return tuple(Unit(arm, f"sigma{sigma}") for arm in self.arms for sigma in self.sigmas)

    def columns(self) -> tuple[Column, ...]:
        """Mean and worst test accuracy at every spread."""
        accuracies = [
            column
            for sigma in self.sigmas
            for column in (
                Column(f"mean_{sigma}", f"sigma {sigma:g}: mean, %", 2, 100),
                Column(f"worst_{sigma}", "worst start, %", 2, 100),
            )
        ]
        return (*accuracies, Column("parameters", "parameters", 0))

    def row(self, arm: str, records: Sequence[Record]) -> dict[str, Value]:
        """Over the starts."""
        row: dict[str, Value] = {"parameters": records[0]["parameters"]}
        for record in records:
            row[f"mean_{record['sigma']}"] = fmean(record["accuracies"])
            row[f"worst_{record['sigma']}"] = min(record["accuracies"])
        return row

    def notes(self, records: Mapping[str, Sequence[Record]]) -> tuple[str, ...]:
        """The best possible accuracy, and the exact solution."""
        best = ", ".join(f"{100 * bayes_accuracy(s):.2f} % at sigma {s:g}" for s in self.sigmas)
        return (
            f"The best possible rule (Bayes) is right in {best}.",
            f"{self.starts} starts each, tested on {self.test_points:,} points; on (0, 1) x (0, 1) one quadratic "
            "neuron is XOR exactly: y = (-2 x1)(x2) + x1 + x2.",
        )

    def draw(self, table: Table, records: Mapping[str, Sequence[Record]]) -> Figure:
        """The decision regions of every arm's first start."""
        figure = Figure(
            figsize=(1.2 + 2.0 * len(self.arms), 0.9 + 2.2 * len(self.sigmas)), layout="constrained"
        )
        panels = figure.subplots(len(self.sigmas), len(self.arms), sharex=True, sharey=True, squeeze=False)
        for column, (name, arm) in enumerate(self.arms.items()):
            for record in records.get(name, ()):
                line = self.sigmas.index(record["sigma"])
                module = build(arm.neuron, arm.hidden)
                module.load_state_dict({k: torch.tensor(v) for k, v in record["weights"].items()})
                points, classes = clusters(self.train_points, record["sigma"], self.generator("train"))
                _regions(panels[line, column], module, points, classes)
                panels[line, column].set_title(
                    f"{name}\n{100 * record['accuracies'][0]:.1f} %" if line == 0
                    else f"{100 * record['accuracies'][0]:.1f} %", fontsize=9,
                )  # fmt: skip
        for line, sigma in enumerate(self.sigmas):
            panels[line, 0].set_ylabel(f"sigma {sigma:g}\n$x_2$")
        for axes in panels[-1]:
            axes.set_xlabel("$x_1$")
        figure.suptitle(
            "Shaded: class 1 of the first start. Dots: training points by their class.", fontsize=9
        )
        return figure

    def generator(self, purpose: str) -> torch.Generator:
        """Random numbers for one purpose."""
        return torch.Generator().manual_seed(stable_seed("xor", purpose, self.seed))


class XorWork(Work):
    """Trains on the same points for every arm."""

    def __init__(self, experiment: Xor) -> None:
        self._experiment = experiment
        self.inputs: Mapping[str, object] = {}

    def measure(self, unit: Unit, bench: Bench) -> Record:
        """Train from every start; the weights of the first one are kept for the picture."""
        settings = self._experiment
        arm, sigma = settings.arms[unit.arm], float(unit.part.removeprefix("sigma"))
        train = clusters(settings.train_points, sigma, settings.generator("train"))
        points, classes = clusters(settings.test_points, sigma, settings.generator("test"))
        accuracies, kept = [], None
        for start in range(settings.starts):
            module = _fit(arm, settings, train, start)
            kept = kept or module
            with torch.no_grad():
                accuracies.append(((module(points) > 0) == classes.bool()).double().mean().item())
        assert kept is not None
        weights: dict[str, Any] = {name: value.tolist() for name, value in kept.state_dict().items()}
        parameters = sum(p.numel() for p in kept.parameters())
        return {"sigma": sigma, "accuracies": accuracies, "parameters": parameters, "weights": weights}


def _fit(arm: XorArm, settings: Xor, data: tuple[Tensor, Tensor], start: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(stable_seed("xor start", settings.seed, start))
        module = build(arm.neuron, arm.hidden)
    parameters = list(module.parameters())
    if parameters:
        optimizer = torch.optim.Adam(parameters, lr=settings.rate)
        for _ in range(settings.steps):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(module(data[0]), data[1]).backward()
            optimizer.step()
    return module


def _regions(axes: Axes, module: nn.Module, points: Tensor, classes: Tensor) -> None:
    line = torch.linspace(-_REACH, _REACH, _PIXELS)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)
    with torch.no_grad():
        decided = (module(grid) > 0).reshape(_PIXELS, _PIXELS).numpy()
    axes.contourf(line.numpy(), line.numpy(), decided.astype(np.float64), levels=[-1, 0.5, 2],
                  colors=["#ffffff", "#bfd4f3"])  # fmt: skip
    for value, colour in ((0, "#d9780f"), (1, "#2563c4")):
        chosen = points[classes == value]
        axes.plot(chosen[:, 0].numpy(), chosen[:, 1].numpy(), ".", color=colour, markersize=2, alpha=0.7)
    axes.set(xlim=(-_REACH, _REACH), ylim=(-_REACH, _REACH), aspect="equal")
