"""Unfused operators -> the kernels a device runs, by its pair rules."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from quadnas.latency.kernels import Kernel, Operator


def fuse(operators: Sequence[Operator], rules: Collection[tuple[str, str]]) -> list[Kernel]:
    """Fuse operators pairwise and return the kernels in the order of their first operators.

    A rule (a, b) fuses operator b into a kernel whose last operator, or whose whole fused name, is a. As in
    nn-Meter, an operator whose output has several readers is not fused forward. A fused kernel keeps the
    shape of its first operator, takes the output channels of its last, and joins their names by "-".
    """
    readers = [0] * len(operators)
    for operator in operators:
        for source in set(operator.sources) - {-1}:
            readers[source] += 1
    groups: list[list[int]] = []
    group_of: list[int] = []
    for position, operator in enumerate(operators):
        group = len(groups)
        for source in operator.sources:
            if source < 0 or readers[source] > 1 or groups[group_of[source]][-1] != source:
                continue
            names = (operators[source].kernel.op, _name(operators, groups[group_of[source]]))
            if any((name, operator.kernel.op) in rules for name in names):
                group = group_of[source]
                break
        if group == len(groups):
            groups.append([])
        groups[group].append(position)
        group_of.append(group)
    return [
        replace(operators[group[0]].kernel, op=_name(operators, group), cout=operators[group[-1]].kernel.cout)
        for group in groups
    ]


def _name(operators: Sequence[Operator], group: Sequence[int]) -> str:
    return "-".join(operators[position].kernel.op for position in group)
