"""How often something may be shown: seldom enough for people, and never for more than 1 % of the time."""

from collections.abc import Callable

_SHARE = 0.01


class Throttle:
    """Lets work through at most once in ``seconds``, and so seldom that it takes 1 % of the time at most.

    ``clock`` gives seconds; the work is due for the first time ``wait`` seconds from now.
    """

    def __init__(self, clock: Callable[[], float], seconds: float, *, wait: float = 0.0) -> None:
        self._clock, self._seconds = clock, seconds
        self._due = clock() + wait

    def __call__(self, work: Callable[[], None]) -> None:
        """Do the work if it is due."""
        start = self._clock()
        if start < self._due:
            return
        work()
        end = self._clock()
        self._due = max(start + self._seconds, end + (end - start) * (1 / _SHARE - 1))
