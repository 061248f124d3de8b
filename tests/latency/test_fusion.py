"""Pair fusion on graphs small enough to fuse by hand."""

from quadnas.latency.fusion import fuse
from quadnas.latency.kernels import Kernel, Operator

RULES = (("conv", "bn"), ("conv", "relu"), ("bn", "relu"), ("add", "relu"))


def op(name: str, *sources: int, cin: int = 8, cout: int = 8) -> Operator:
    return Operator(Kernel(name, 14, 14, (cin,), cout), sources)


def names(operators: list[Operator], rules: tuple[tuple[str, str], ...] = RULES) -> list[str]:
    return [kernel.op for kernel in fuse(operators, rules)]


def test_a_chain_becomes_one_kernel_with_the_first_input_and_the_last_output() -> None:
    chain = [op("conv", -1, cin=3, cout=8), op("bn", 0), op("relu", 1, cin=8, cout=16)]
    assert fuse(chain, RULES) == [Kernel("conv-bn-relu", 14, 14, (3,), 16)]


def test_without_a_rule_nothing_fuses() -> None:
    assert names([op("conv", -1), op("bn", 0)], ()) == ["conv", "bn"]


def test_an_output_with_two_readers_is_not_fused_forward() -> None:
    assert names([op("conv", -1), op("bn", 0), op("add", 0, 1)]) == ["conv", "bn", "add"]


def test_a_reader_that_reads_twice_is_one_reader() -> None:
    assert names([op("add", -1, -1), op("relu", 0, 0)]) == ["add-relu"]


def test_branches_fuse_apart_and_the_sum_after_the_last_branch() -> None:
    graph = [op("conv", -1), op("conv", -1), op("bn", 0), op("bn", 1), op("add", 2, 3), op("relu", 4)]
    assert names(graph) == ["conv-bn", "conv-bn", "add-relu"]


def test_rules_speak_of_the_first_operator_of_a_kernel() -> None:
    """As nn-Meter reads its rules: on the GPU conv-add makes a sum free behind conv-bn, bn-add is no rule."""
    chain = [op("conv", -1), op("bn", 0), op("add", -1, 1)]
    assert names(chain, (("conv", "bn"), ("conv", "add"))) == ["conv-bn-add"]
    assert names(chain, (("conv", "bn"), ("bn", "add"))) == ["conv-bn", "add"]


def test_of_two_kernels_the_earlier_one_takes_the_sum() -> None:
    graph = [op("conv", -1), op("dwconv", -1), op("add", 1, 0)]
    assert names(graph, (("conv", "add"), ("dwconv", "add"))) == ["conv-add", "dwconv"]


def test_a_rule_may_ask_for_the_whole_kernel() -> None:
    """As on the Myriad: conv-bn takes a relu, a lone bn does not."""
    rules = (("conv", "bn"), ("conv-bn", "relu"))
    assert names([op("conv", -1), op("bn", 0), op("relu", 1)], rules) == ["conv-bn-relu"]
    assert names([op("bn", -1), op("relu", 0)], rules) == ["bn", "relu"]


def test_the_input_of_the_layer_is_not_an_operator() -> None:
    assert names([op("relu", -1)]) == ["relu"]
    assert fuse([], RULES) == []
