"""Every registered strategy keeps the contract."""

import pytest
import torch

from quadnas.data.base import Batch
from quadnas.latency.kernels import Kernel
from quadnas.search.strategy import STRATEGIES, Strategy
from quadnas.testing.strategies import check_strategy
from tests.toy import taps_ms, toy_problem


@pytest.mark.parametrize("name", list(STRATEGIES))
@pytest.mark.parametrize("refused_kernel", [None, 5])
def test_strategy(name: str, refused_kernel: int | None) -> None:
    def formula(kernel: Kernel) -> float | None:
        return None if kernel.kernel == refused_kernel else taps_ms(kernel)

    problem = toy_problem(limit_ms=1.0, formula=formula)

    def make() -> Strategy:
        torch.manual_seed(0)
        return STRATEGIES[name](problem)

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 32, 32, generator=generator)
    check_strategy(make, problem, Batch(images, torch.tensor([0, 1, 2, 3])))
