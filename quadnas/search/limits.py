"""Limits on latency and size as a search holds them, and whether a space can meet them all at once."""

import decimal
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from quadnas.errors import LimitError
from quadnas.latency.model import Estimate, LatencyModel, Price, estimate, upper_ms
from quadnas.latency.table import CostTable, build_table
from quadnas.network import kernels_of, position_kernels, position_operators
from quadnas.search.constraint import Limit, best_within
from quadnas.sizes import macs, parameters, weight_bytes
from quadnas.space.layer import Layer
from quadnas.space.search_space import SearchSpace, Slot


def price_space(
    space: SearchSpace, model: LatencyModel, classes: int, input_size: int, confidence: float | None = None
) -> CostTable:
    """What every candidate costs on a device, in ms."""

    def cost_ms(price: Price) -> float:
        return upper_ms(model, price, confidence)

    fixed, slots = position_kernels(space, classes, input_size, model)
    return build_table(model, fixed, slots, cost_ms)


def predicted(
    space: SearchSpace, model: LatencyModel, classes: int, input_size: int, choices: Sequence[int]
) -> Estimate:
    """The predicted latency of a whole architecture at deployment size."""
    return estimate(model, kernels_of(space.layers(choices, classes), input_size, model))


def latency_limit(
    space: SearchSpace,
    model: LatencyModel,
    classes: int,
    input_size: int,
    limit_ms: float,
    confidence: float | None = None,
) -> Limit:
    """The prediction plus the asked-for error, as a winner of a search has it, within ``limit_ms`` on a device.

    A sum of prices is never below the bound of the whole network.
    """

    def bound_ms(choices: Sequence[int]) -> float:
        found = predicted(space, model, classes, input_size, choices)
        return found.upper_ms(confidence, winner=True)

    costs = price_space(space, model, classes, input_size, confidence)
    return Limit(model.card.device, "ms", limit_ms, costs, bound_ms)


UNITS = {"parameters": "parameters", "macs": "multiply-accumulates", "weight_bytes": "bytes of weights"}
"""The sizes that can be limited, in words."""


def size_limits(
    space: SearchSpace, classes: int, input_size: int, maxima: Mapping[str, int | None]
) -> list[Limit]:
    """Limits on the sizes (keys of UNITS) that have a maximum; weight bytes are those of fp32, as deployed."""

    def limit(name: str, maximum: int) -> Limit:
        def whole(choices: Sequence[int]) -> float:
            layers = space.layers(choices, classes)
            return macs(layers, input_size) if name == "macs" else _BY_LAYER[name](layers)

        costs = (
            macs_table(space, classes, input_size) if name == "macs" else _layer_table(space, classes, name)
        )
        return Limit(name, UNITS[name], maximum, costs, whole)

    return [limit(name, maximum) for name, maximum in maxima.items() if maximum is not None]


_BY_LAYER = {"parameters": parameters, "weight_bytes": weight_bytes}


def _layer_table(space: SearchSpace, classes: int, name: str) -> CostTable:
    count = _BY_LAYER[name]
    head = space.head.model_copy(update={"channels_out": classes})
    fixed = [position for position in (*space.positions, head) if isinstance(position, Layer)]
    slots = [position for position in space.positions if isinstance(position, Slot)]
    return CostTable(
        count(fixed),
        tuple(tuple(float(count([layer])) for layer in slot.candidates.values()) for slot in slots),
    )


def macs_table(space: SearchSpace, classes: int, input_size: int) -> CostTable:
    """Multiply-accumulates of every candidate for one image of side ``input_size``."""
    fixed, slots = position_operators(space, classes, input_size)
    return CostTable(
        sum(operator.kernel.macs for found in fixed for operator in found),
        tuple(
            tuple(float(sum(operator.kernel.macs for operator in found)) for found in candidates)
            for candidates in slots
        ),
    )


def with_common_prices(limits: Sequence[Limit]) -> tuple[Limit, ...]:
    """The limits, in which a candidate that one of them cannot price has no price at all."""
    unpriced = np.any([~limit.costs.priced.numpy() for limit in limits], axis=0)

    def common(table: CostTable) -> CostTable:
        rows = (
            tuple(np.inf if refused else cost for cost, refused in zip(row, marks, strict=False))
            for row, marks in zip(table.rows, unpriced, strict=True)
        )
        return CostTable(table.fixed, tuple(rows))

    return tuple(replace(limit, costs=common(limit.costs)) for limit in limits)


def conflict(limits: Sequence[Limit]) -> tuple[Limit, ...]:
    """Limits that no network meets together, so few that without any of them one does; empty if all can be met."""
    if _feasible(limits):
        return ()
    kept = list(limits)
    for limit in limits:
        others = [other for other in kept if other is not limit]
        if others and not _feasible(others):
            kept = others
    return tuple(kept)


def conflict_text(limits: Sequence[Limit]) -> str:
    """What limits that can be met alone, but not together, could reach: alone, and beside the others."""
    reach = []
    for limit in limits:
        others = [(other.costs, other.value) for other in limits if other is not limit]
        beside = limit.costs.of(best_within(-_padded(limit.costs), others))
        alone = limit.costs.range[0]
        reach.append(
            f"{limit.text(limit.value)} (alone {rounded_up(alone)}, beside the others {rounded_up(beside)})"
        )
    return " and ".join(reach)


def rounded_up(value: float) -> str:
    """Four digits that, given as a limit, can be met."""
    context = decimal.Context(prec=4, rounding=decimal.ROUND_CEILING)
    return f"{context.create_decimal_from_float(value):f}"


def _feasible(limits: Sequence[Limit]) -> bool:
    try:
        best_within(
            np.zeros(tuple(limits[0].costs.priced.shape)), [(limit.costs, limit.value) for limit in limits]
        )
    except LimitError:
        return False
    return True


def _padded(table: CostTable) -> NDArray[np.float64]:
    """(slots, most candidates), 0 where there is no price."""
    found = np.zeros(tuple(table.priced.shape))
    for slot, row in zip(found, table.rows, strict=True):
        slot[: len(row)] = [cost if np.isfinite(cost) else 0.0 for cost in row]
    return found
