"""A signal asks the loop to stop; a second Ctrl-C insists."""

import os
import signal

import pytest

from quadnas.run.interrupt import stop_requested


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_sets_the_flag(number: signal.Signals) -> None:
    before = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    with stop_requested() as flag:
        assert flag.signal is None
        os.kill(os.getpid(), number)
        assert flag.signal == number
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.signal == number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_handlers_are_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), stop_requested():
        _ = 1 / 0
    assert signal.getsignal(signal.SIGTERM) == before
