"""What the run of a search tells of it beside its result: whether the limit bound, and how long it took."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quadnas.run.events import Derived, Event, Observer
from quadnas.search.problem import Problem

BOUND, FREE, ALL_FIT = "yes", "no", "all fit"


def limit_bound(events: Sequence[Mapping[str, Any]], problem: Problem) -> str:
    """Whether the search would have chosen a network above its limit, had there been none.

    ``events`` are the lines of its journal. It would have if the most probable network is above the limit in the
    end, or if only the latency term holds it below: a multiplier above 0 (complementary slackness). ALL_FIT: no
    network of the space is above the limit.
    """
    if problem.unlimited:
        return ALL_FIT
    last = {event["event"]: event for event in events}
    steered = last.get("ArchitectureStep", {}).get("multiplier", 0.0) > 0
    return BOUND if steered or last["Derived"]["argmax_ms"] > problem.limit_ms else FREE


def bound_text(bound: Sequence[str | None]) -> str | None:
    """That of several searches with one limit; None for what was not searched."""
    counts = Counter(bound)
    if len(counts) == 1:
        return bound[0]
    return f"{counts[BOUND]} of {len(bound)}"


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
