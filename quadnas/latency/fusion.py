"""Unfused operators -> the kernels a device runs, by its pair rules."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from quadnas.latency.kernels import Kernel, Operator


def fuse(operators: Sequence[Operator], rules: Collection[tuple[str, str]]) -> list[Kernel]:
    """Fuse operators pairwise and return the kernels in the order of their first operators.

    A rule (a, b) fuses operator b into a kernel whose first operator, or whose whole fused name, is a. As in
    nn-Meter, whose detector reads its rules so, an operator whose output has several readers is not fused
    forward, and of two kernels that could take an operator the earlier one does. A fused kernel keeps the shape
    of its first operator, takes the output channels of its last, and joins their names by "-".
    """
    readers = [0] * len(operators)
    for operator in operators:
        for source in set(operator.sources) - {-1}:
            readers[source] += 1
    groups: list[list[int]] = []
    group_of: list[int] = []
    for position, operator in enumerate(operators):
        takers = [
            group_of[source]
            for source in operator.sources
            if source >= 0
            and readers[source] == 1
            and groups[group_of[source]][-1] == source
            and _fuses(operators, groups[group_of[source]], operator.kernel.op, rules)
        ]
        group = min(takers, default=len(groups))
        if group == len(groups):
            groups.append([])
        groups[group].append(position)
        group_of.append(group)
    return [
        replace(operators[group[0]].kernel, op=_name(operators, group), cout=operators[group[-1]].kernel.cout)
        for group in groups
    ]


def _fuses(
    operators: Sequence[Operator], group: Sequence[int], op: str, rules: Collection[tuple[str, str]]
) -> bool:
    return (operators[group[0]].kernel.op, op) in rules or (_name(operators, group), op) in rules


def _name(operators: Sequence[Operator], group: Sequence[int]) -> str:
    return "-".join(operators[position].kernel.op for position in group)
