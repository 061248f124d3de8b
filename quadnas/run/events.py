"""What a run tells its observers; the journal keeps every event as one line."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class PhaseStarted(Event):
    """``phase`` (``warm-up``, ``search``, ``retraining``) begins or resumes at ``step`` of ``steps``."""

    phase: str
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class WeightStep(Event):
    """One update of the weights. ``loss`` is the training loss, ``accuracy`` a fraction of the batch."""

    phase: str
    step: int
    steps: int
    loss: float
    accuracy: float
    learning_rate: float


@dataclass(frozen=True, slots=True)
class LimitStep:
    """E[cost], the most probable network's cost, the limit and its multiplier for a further device or a size.

    ``name``: the device, or what is counted; ``unit``: ``ms``, or what is counted in words.
    """

    name: str
    unit: str
    expected: float
    argmax: float
    limit: float
    multiplier: float


@dataclass(frozen=True, slots=True)
class ArchitectureStep(Event):
    """One update of the architecture parameters, on a batch of the held-out split, after weight step ``step``.

    ``expected_ms`` is E[latency] under the probabilities, ``argmax_ms`` the latency of the most probable
    network before the knapsack, ``multiplier`` what the limit takes off the log-odds of a candidate that costs all
    of it, 0 where it does not bind (``search.constraint.multipliers``), ``probabilities`` one row per slot.
    ``gains``, rows like these, say how much lower the loss is with a candidate in its slot than with the average
    of the slot's candidates (positive is better, None where it was not measured), ``gain_errors`` their standard
    errors; None altogether from a strategy that measures none.
    ``beside``: the limits beside the first.
    """

    step: int
    loss: float
    accuracy: float
    expected_ms: float
    argmax_ms: float
    limit_ms: float
    multiplier: float
    probabilities: tuple[tuple[float, ...], ...]
    gains: tuple[tuple[float | None, ...], ...] | None = None
    gain_errors: tuple[tuple[float | None, ...], ...] | None = None
    beside: tuple[LimitStep, ...] = ()


@dataclass(frozen=True, slots=True)
class Compared(Event):
    """The loss of an architecture on held-out images, with the supernet's weights, before one is chosen."""

    architecture: str
    loss: float


@dataclass(frozen=True, slots=True)
class Derived(Event):
    """The architecture that was chosen, and what of it was held to the limit (prediction and asked-for error).

    ``unlimited_ms`` is the same for the architecture that would have been chosen without limits, as
    ``search.unlimited`` tells it from the same scores or comparisons; None where these do not say.
    """

    architecture: str
    bound_ms: float
    unlimited_architecture: str | None
    unlimited_ms: float | None


@dataclass(frozen=True, slots=True)
class Evaluated(Event):
    """A network with its weights on a ``split``: fraction correct, mean loss.

    ``network``: the weights are ``inherited`` from a supernet, ``fresh`` where there was none, or ``retrained``.
    """

    network: str
    split: str
    accuracy: float
    loss: float
    images: int


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Something the user should know."""

    text: str


Observer = Callable[[Event], None]


def all_of(*observers: Observer) -> Observer:
    """One observer that shows every event to all ``observers`` in their order."""

    def observe(event: Event) -> None:
        for observer in observers:
            observer(event)

    return observe
