"""The loss on the architecture parameters: task loss with a differentiable latency term.

Sources: ``mul_log`` and ``add_linear`` as in the released ProxylessNAS code, with its constants.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from quadnas.errors import ConfigError
from quadnas.search.settings import LatencyLoss

MUL_LOG_ALPHA, MUL_LOG_BETA = 0.2, 0.3
ADD_LINEAR_LAMBDA = 0.1


def check_latency_loss(form: LatencyLoss, fastest_ms: float) -> None:
    """Raise ConfigError where the form is not defined: ``mul_log`` takes logarithms of milliseconds."""
    if form == "mul_log" and fastest_ms <= 1:
        raise ConfigError(
            f"latency_loss mul_log needs latencies above 1 ms, the space begins at {fastest_ms:.3g} ms; "
            "use multiplier or add_linear"
        )


@dataclass(frozen=True, slots=True)
class Term:
    """E[cost] () of one limit, the limit, and the weight of the term from its one-sided multiplier."""

    expected: Tensor
    limit: float
    multiplier: float


def architecture_loss(form: LatencyLoss, task_loss: Tensor, terms: Sequence[Term]) -> Tensor:
    """Combine the task loss () with what limits hold, E[latency] () in ms first.

    multiplier: L + sum of m E/limit, where m = 0 leaves a limit out; mul_log: a L (ln E / ln limit)^b and
    add_linear: L + c (E - limit)/limit, with the one latency alone.
    """
    if form == "multiplier":
        return task_loss + sum(term.multiplier * term.expected / term.limit for term in terms)
    (term,) = terms
    if form == "mul_log":
        return MUL_LOG_ALPHA * task_loss * (term.expected.log() / math.log(term.limit)) ** MUL_LOG_BETA
    return task_loss + ADD_LINEAR_LAMBDA * (term.expected - term.limit) / term.limit
