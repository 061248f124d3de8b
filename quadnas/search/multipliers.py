"""The multipliers of the limits: what keeps the expected cost of a distribution within every one of them."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from quadnas.search.constraint import Limit

Floats = NDArray[np.float64]
Dual = Callable[[Floats], tuple[float, Floats, Floats]]
"""Multipliers (limits,) -> the value of the dual, its gradient (limits,) and its curvature (limits, limits)."""

HELD_TO = 1e-6
"""How closely E[cost] comes to a limit that binds, as a share of it."""

STEPS, HALVINGS = 100, 100
"""Of Newton's method at one heat, and of one of its steps: far more than any needs."""

SUFFICIENT = 1e-4
"""Share of the decrease promised by the gradient that a step must bring (Armijo)."""

DAMPING = 1e-9
"""Of the curvature, which vanishes where all slots have decided."""


def multipliers(logits: Floats, limits: Sequence[Limit]) -> Floats:
    """The Lagrange multipliers (limits,) that keep every E[cost] within its limit; 0 for one that does not bind.

    logits (slots, most candidates), -inf where there is no price. Among all distributions within the limits,
    softmax(logits - ``tilt``) is the one closest to softmax(logits) by the Kullback-Leibler divergence.
    The gradient of the convex dual that is minimised is (limit - E)/limit. Cold logits give the dual kinks that
    a line search gets stuck at, so it is minimised for hot ones first, and for ones that halve their heat after.
    Source: the I-projection, Csiszar, Annals of Probability 3 (1975).
    """
    costs = relative_costs(limits, logits.shape[1])
    left = np.array([1 - limit.costs.fixed / limit.value for limit in limits])
    weights = np.zeros(len(limits))
    spread = max(np.ptp(row[np.isfinite(row)]) for row in logits)
    for halvings in reversed(range(1 + math.ceil(math.log2(max(spread, 1))))):
        weights = _least(_dual(logits, costs, left, heat=2.0**halvings), weights)
    return weights


def relative_costs(limits: Sequence[Limit], width: int) -> Floats:
    """(limits, slots, width): every candidate's cost over the limit, 0 where there is no price."""
    costs = np.zeros((len(limits), len(limits[0].costs.rows), width))
    for own, limit in zip(costs, limits, strict=True):
        for slot, row in zip(own, limit.costs.rows, strict=True):
            slot[: len(row)] = np.where(np.isfinite(row), row, 0) / limit.value
    return costs


def tilt(weights: Floats, costs: Floats) -> Floats:
    """What multipliers (limits,) take off the logits (slots, most candidates), by ``relative_costs``."""
    taken: Floats = np.tensordot(weights, costs, 1)
    return taken


def _dual(logits: Floats, costs: Floats, left: Floats, heat: float) -> Dual:
    def at(weights: Floats) -> tuple[float, Floats, Floats]:
        tilted = (logits - tilt(weights, costs)) / heat
        highest = tilted.max(1, keepdims=True)
        odds = np.exp(tilted - highest)
        total = odds.sum(1, keepdims=True)
        spent = odds / total * costs
        means = spent.sum(2)
        value = heat * float((np.log(total) + highest).sum()) + float(weights @ left)
        curvature = (np.tensordot(spent, costs, ((1, 2), (1, 2))) - means @ means.T) / heat
        return value, left - means.sum(1), curvature

    return at


def _least(dual: Dual, weights: Floats) -> Floats:
    """The multipliers, none below 0, at which the dual is least: Newton's method on those that may move.

    Source: Bertsekas, Projected Newton methods, SIAM Journal on Control and Optimization 20 (1982).
    """
    value, gradient, curvature = dual(weights)
    for _ in range(STEPS):
        free = (weights > 0) | (gradient < 0)
        if np.abs(gradient[free]).max(initial=0.0) <= HELD_TO:
            break
        own = curvature[np.ix_(free, free)]
        step = np.zeros_like(weights)
        step[free] = np.linalg.solve(
            own + DAMPING * (np.trace(own) + DAMPING) * np.eye(len(own)), -gradient[free]
        )
        for halvings in range(HALVINGS):
            trial = np.maximum(weights + 0.5**halvings * step, 0)
            found = dual(trial)
            if found[0] <= value + SUFFICIENT * min(0.0, float(gradient @ (trial - weights))):
                break
        else:
            break
        weights, (value, gradient, curvature) = trial, found
    return weights
