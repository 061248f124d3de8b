"""XOR by one neuron, against what can be derived."""

import pytest
import torch
from scipy.stats import norm

from quadnas.compare.experiment import Bench, Unit, experiment_from
from quadnas.compare.kinds.xor import QuadraticNeuron, SignRule, Xor, bayes_accuracy, build, clusters
from quadnas.compare.table import Table
from quadnas.errors import ConfigError

UNUSED = Bench.__new__(Bench)
CORNERS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def xor(**changes: object) -> Xor:
    data = {
        "format": "quadnas-experiment/1", "kind": "xor", "title": "t", "sigmas": [0.3], "starts": 2,
        "test_points": 4000,
        "arms": {name: {"neuron": name} for name in ("linear", "quadratic", "quadratic-no-factor-bias", "mlp-relu",
                                                     "bayes")},
        **changes,
    }  # fmt: skip
    experiment = experiment_from(data, "xor.yaml")
    assert isinstance(experiment, Xor)
    return experiment


def test_one_quadratic_neuron_is_xor_exactly() -> None:
    neuron = QuadraticNeuron(factor_biases=False)
    weights = {"factor_a.weight": [[-2.0, 0.0]], "factor_b.weight": [[0.0, 1.0]], "linear.weight": [[1.0, 1.0]],
               "linear.bias": [0.0]}  # fmt: skip
    neuron.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    assert neuron(CORNERS).tolist() == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("neuron", "parameters"),
    [("linear", 3), ("quadratic", 9), ("quadratic-no-factor-bias", 7), ("mlp-relu", 41), ("mlp-tanh", 41)],
)
def test_parameters_by_hand(neuron: str, parameters: int) -> None:
    """2+1; three of 2 with their biases; the same less two biases; 2 10 + 10 + 10 + 1."""
    module = build(neuron, 10)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters
    assert module(CORNERS).shape == (4,)


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0])
def test_the_best_possible_accuracy(sigma: float) -> None:
    right = norm.cdf(1 / sigma)
    assert bayes_accuracy(sigma) == pytest.approx(right**2 + (1 - right) ** 2, abs=1e-12)
    points, classes = clusters(200_000, sigma, torch.Generator().manual_seed(1))
    found = ((SignRule()(points) > 0) == classes.bool()).double().mean().item()
    spread = (bayes_accuracy(sigma) * (1 - bayes_accuracy(sigma)) / 200_000) ** 0.5
    assert abs(found - bayes_accuracy(sigma)) < 5 * spread


def test_a_quadratic_neuron_learns_what_a_linear_one_cannot() -> None:
    experiment = xor()
    work = experiment.prepare()
    records = {unit: work.measure(unit, UNUSED) for unit in experiment.units()}
    table: Table = experiment.table(records, {})
    mean = {row.arm: row.values["mean_0.3"] for row in table.rows}
    assert isinstance(mean["linear"], float)
    assert mean["linear"] < 0.55
    for arm in ("quadratic", "quadratic-no-factor-bias", "mlp-relu"):
        found = mean[arm]
        assert isinstance(found, float)
        assert 0.97 < found <= 1
    assert records == {unit: work.measure(unit, UNUSED) for unit in experiment.units()}


def test_the_picture_has_a_panel_for_every_arm_and_spread() -> None:
    experiment = xor(sigmas=[0.3, 0.5], starts=1, test_points=400, steps=5)
    work = experiment.prepare()
    records = {unit: work.measure(unit, UNUSED) for unit in experiment.units()}
    assert Unit("linear", "sigma0.5") in records
    figure = experiment.draw(experiment.table(records, {}), experiment.by_arm(records))
    assert len(figure.axes) == 2 * len(experiment.arms)
    assert all(axes.collections for axes in figure.axes)


def test_a_spread_of_many_digits_has_a_panel_too() -> None:
    experiment = xor(sigmas=[1 / 3], starts=1, test_points=400, steps=5)
    work = experiment.prepare()
    records = {unit: work.measure(unit, UNUSED) for unit in experiment.units()}
    assert {record["sigma"] for record in records.values()} == {1 / 3}
    assert experiment.draw(experiment.table(records, {}), experiment.by_arm(records)).axes


def test_no_spread_or_one_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sigmas: .*0\.3 stands twice"):
        xor(sigmas=[0.3, 0.5, 0.3])
    with pytest.raises(ConfigError, match="sigmas"):
        xor(sigmas=[])
