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

    ``events`` are the lines of its journal. It would have if the most probable network is above the limit in the
    end, or if only the limit's term in the loss holds it below: a multiplier above 0 (complementary slackness).
    ALL_FIT: no network of the space is above a limit; UNKNOWN: the strategy learns no probabilities, or chose
    another network than they say although that one is within the limits, so it did not go by them alone.
    """
    if problem.unlimited:
        return ALL_FIT
    last = {event["event"]: event for event in events}
    chosen, argmax = (last["Derived"][key] for key in ("architecture", "argmax_architecture"))
    if argmax is None:
        return UNKNOWN
    likeliest = problem.space.choices(Architecture.parse(argmax))
    step = last.get("ArchitectureStep")
    steered = [one["multiplier"] > 0 for one in (step, *step.get("beside", ()))] if step else []
    bound = [
        limit.name
        for number, limit in enumerate(problem.limits)
        if any(steered[number : number + 1]) or not limit.fits(likeliest)
    ]
    if not bound:
        return FREE if chosen == argmax else UNKNOWN
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
