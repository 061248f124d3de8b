"""The loss on the architecture parameters: task loss with a published latency term.

Sources: ``mul_log`` and ``add_linear`` as in the released ProxylessNAS code, with its constants.
"""

import math

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


def architecture_loss(form: LatencyLoss, task_loss: Tensor, expected_ms: Tensor, limit_ms: float) -> Tensor:
    """Combine the task loss L () with E[latency] ().

    multiplier: L alone, as ``ArchitectureLearner.hold`` keeps E within the limits; mul_log:
    a L (ln E / ln limit)^b; add_linear: L + c (E - limit)/limit.
    """
    if form == "mul_log":
        return MUL_LOG_ALPHA * task_loss * (expected_ms.log() / math.log(limit_ms)) ** MUL_LOG_BETA
    if form == "add_linear":
        return task_loss + ADD_LINEAR_LAMBDA * (expected_ms - limit_ms) / limit_ms
    return task_loss
