"""A forked child: the only way to die at a chosen moment without importing torch anew."""

import os
import sys
import traceback
from collections.abc import Callable

import pytest
import torch

Spawn = Callable[[Callable[[], None]], int]


@pytest.fixture
def spawn() -> Spawn:
    """Run a function in a forked child; returns the child's process id, which the test waits for."""

    def start(work: Callable[[], None]) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            torch.set_num_threads(
                1
            )  # a forked child has none of its parent's OpenMP threads and would wait for them
            work()
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            os._exit(70)
        os._exit(0)

    return start
