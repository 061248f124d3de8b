"""What the run of a search tells of it beside its result: whether the limit bound, and how long it took."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quadnas.run.events import Derived, Event, Observer
from quadnas.search.problem import Problem
from quadnas.space.architecture import Architecture

BOUND, FREE, ALL_FIT, UNKNOWN = "yes", "no", "all fit", "not known"


def limit_bound(events: Sequence[Mapping[str, Any]], problem: Problem) -> str:
    """Whether the search would have chosen a network above its limit, had there been none; of several, which ones.

    ``events`` are the lines of its journal. It would have if the best network by its scores is above the limit
    (``search.unlimited``); a latency term in its loss or reward has its part in the scores.
    ALL_FIT: no network of the space is above a limit; UNKNOWN: the scores do not say.
    """
    if problem.unlimited:
        return ALL_FIT
    last = {event["event"]: event for event in events}
    text = last["Derived"]["unlimited_architecture"]
    if text is None:
        return UNKNOWN
    unlimited = problem.space.choices(Architecture.parse(text))
    bound = [limit.name for limit in problem.limits if not limit.fits(unlimited)]
    if not bound:
        return FREE
    return BOUND if len(problem.limits) == 1 else ", ".join(bound)


def bound_text(bound: Sequence[str | None]) -> str | None:
    """That of several searches with the same limits, each answer with how often it came; None without a search."""
    counts = Counter(answer for answer in bound if answer is not None)
    if len(counts) < 2:
        return next(iter(counts), None)
    return "; ".join(f"{answer}: {count}" for answer, count in counts.items())


@dataclass(slots=True)
class SearchTimer:
    """Passes events on and notes the seconds until the architecture is chosen; None until then."""

    observe: Observer
    clock: Callable[[], float]
    begun: float
    seconds: float | None = None

    def __call__(self, event: Event) -> None:
        """See ``Observer``."""
        self.observe(event)
        if isinstance(event, Derived):
            self.seconds = self.clock() - self.begun
