"""SIGINT and SIGTERM as a request that the main loop honours between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """Which signal asked the run to stop: its number, or None."""

    signal: int | None = None


@contextmanager
def stop_requested() -> Iterator[StopFlag]:
    """Catch SIGINT and SIGTERM in the block (main thread only): the first one of them sets the flag.

    A SIGINT after that raises KeyboardInterrupt at once. The handlers before are back afterwards.
    """
    flag = StopFlag()

    def handle(number: int, _frame: FrameType | None) -> None:
        if flag.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.signal = flag.signal or number

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
