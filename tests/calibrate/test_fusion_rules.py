"""The rule test, on times made of what each operator costs and what each pair saves."""

from itertools import pairwise

import pytest

from quadnas.calibrate.own.bench import Measured
from quadnas.calibrate.own.fusion_rules import Rules, probes, rules_from
from quadnas.calibrate.own.measuring import Timing
from quadnas.latency.fusion import fuse

COSTS_MS = {"layernorm": 0.05, "conv": 1.0, "dwconv": 0.3, "relu": 0.1, "hswish": 0.2, "gelu": 0.4}
ALWAYS = (("conv", "bn"), ("dwconv", "bn"))


def found(saved_ms: dict[tuple[str, str], float]) -> Rules:
    """The rules where a pair saves so much of the sum of both."""
    measured = []
    for graph in probes():
        names = [operator.kernel.op for operator in graph.operators]
        total_ms = sum(COSTS_MS[name] for name in names)
        total_ms -= sum(saved_ms.get(pair, 0.0) for pair in pairwise(names))
        measured.append(Measured(graph, Timing(total_ms, 0.0, 15, 0.0)))
    return rules_from(measured)


def test_where_nothing_is_saved_nothing_fuses_but_batch_normalisation() -> None:
    assert found({}) == Rules(ALWAYS, ("bn",))


def test_a_pair_that_costs_what_its_first_operator_does_is_one_kernel_and_its_second_free() -> None:
    rules = found({("conv", "relu"): 0.1, ("dwconv", "relu"): 0.095})
    assert set(rules.fusion) == {
        *ALWAYS,
        ("conv", "relu"),
        ("conv-bn", "relu"),
        ("dwconv", "relu"),
        ("dwconv-bn", "relu"),
    }
    assert rules.folded == ("bn", "relu")


def test_a_fused_operator_that_still_costs_is_not_free() -> None:
    """GELU in the convolution's loop saves the traffic, not the arithmetic."""
    rules = found({("conv", "gelu"): 0.25})
    assert ("conv", "gelu") in rules.fusion
    assert rules.folded == ("bn",)


@pytest.mark.parametrize(("saved_ms", "fused"), [(0.19, False), (0.21, True)])
def test_half_of_the_cheaper_operator_must_be_saved(saved_ms: float, fused: bool) -> None:
    assert (("conv", "gelu") in found({("conv", "gelu"): saved_ms}).fusion) is fused


def test_the_probes_are_single_kernels_by_the_rules_that_they_show() -> None:
    everything = found(
        {(a, b): 0.5 * COSTS_MS[b] + 0.01 for a in ("conv", "dwconv") for b in ("relu", "hswish", "gelu")}
    )
    names = {kernel.op for graph in probes() for kernel in fuse(graph.operators, everything.fusion)}
    assert {"conv-relu", "dwconv-gelu", "conv-hswish"} <= names


def test_every_probe_is_its_operators_between_layer_norms() -> None:
    for graph in probes():
        kernels = [operator.kernel for operator in graph.operators]
        assert [kernel.op for kernel in kernels[:2]] == ["layernorm", "layernorm"] and kernels[
            -1
        ].op == "layernorm"
        assert all(one.cout == other.cin for one, other in pairwise(kernels))
        assert len({kernel.cout for kernel in kernels[3:]} | {256}) == 1
    assert len({graph.operators for graph in probes()}) == len(probes()) == 12
