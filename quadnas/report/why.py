"""Why a slot holds its block: what every candidate costs, how probable it became, what it was measured to gain."""

from collections.abc import Iterator
from dataclasses import dataclass

from quadnas.report.facts import slot_names
from quadnas.report.figures import Events
from quadnas.report.labels import read_label
from quadnas.search.result import SearchResult, SlotRecord

_POINTS = 48


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate of one slot; None is what is not known of it.

    ``probability`` after the last architecture step, ``history`` at up to 48 moments of the search; ``gain``: how
    much lower the loss was measured with it than with the slot's average candidate, with its standard error;
    ``network_ms``: the network's latency with it in the slot and everything else as chosen, by the sum of the
    prices; ``fits``: whether that is within all limits.
    """

    name: str
    latency_ms: float | None
    probability: float | None
    history: tuple[float, ...]
    gain: float | None
    error: float | None
    network_ms: float | None
    fits: bool
    chosen: bool


@dataclass(frozen=True, slots=True)
class Story:
    """One slot: its name such as ``2.3``, its candidates, and the share of the network's latency that it takes."""

    name: str
    candidates: tuple[Candidate, ...]
    share: float

    @property
    def chosen(self) -> Candidate:
        """The candidate that the network has."""
        return next(candidate for candidate in self.candidates if candidate.chosen)

    def course(self, candidate: Candidate) -> str:
        """A candidate's probability over the search as points in 100 x 20, up to the slot's highest."""
        highest = max(p for one in self.candidates for p in one.history)
        width = 100 / max(len(candidate.history) - 1, 1)
        return " ".join(
            f"{i * width:.3g},{19 - 18 * p / highest:.3g}" for i, p in enumerate(candidate.history)
        )

    def spans(self, candidate: Candidate) -> Iterator[tuple[str, str]]:
        """Where zero, a candidate's gain and twice its error lie within the slot's range, as classes and CSS."""
        found = [(one.gain, 2 * known(one.error)) for one in self.candidates if one.gain is not None]
        low = min(0.0, *(gain - error for gain, error in found))
        high = max(0.0, *(gain + error for gain, error in found))

        def span(start: float, end: float) -> str:
            unit = (high - low) / 100 or 1.0
            return f"left:{(min(start, end) - low) / unit:.1f}%;width:{abs(end - start) / unit:.1f}%"

        yield "zero", span(0.0, 0.0)
        if candidate.gain is not None:
            error = 2 * known(candidate.error)
            yield "bar", span(0.0, candidate.gain)
            yield "whisker", span(candidate.gain - error, candidate.gain + error)


def stories(result: SearchResult, events: Events) -> tuple[Story, ...]:
    """What a finished search and its journal say of every slot."""
    steps = [event for event in events if event["event"] == "ArchitectureStep"]
    shown = [steps[i * (len(steps) - 1) // (_POINTS - 1)] for i in range(_POINTS)] if steps else []
    histories = [event["probabilities"] for event in (steps if len(steps) <= _POINTS else shown)]
    measured = next((event for event in reversed(steps) if event.get("gains")), None)

    def story(position: int, name: str, slot: SlotRecord) -> Story:
        own_ms = slot.latency_ms[slot.chosen] or 0.0
        gains, errors = ((measured[key][position] if measured else []) for key in ("gains", "gain_errors"))
        candidates = []
        for i, (label, price_ms) in enumerate(zip(slot.labels, slot.latency_ms, strict=True)):
            network_ms = None if price_ms is None else result.latency_ms - own_ms + price_ms
            history = tuple(rows[position][i] for rows in histories)
            priced = measured is not None and price_ms is not None
            candidates.append(
                Candidate(
                    read_label(label).full,
                    price_ms,
                    history[-1] if history else None,
                    history,
                    gains[i] if priced else None,
                    errors[i] if priced else None,
                    network_ms,
                    slot.fits[i],
                    i == slot.chosen,
                )
            )
        return Story(name, tuple(candidates), own_ms / result.latency_ms)

    named = zip(slot_names(result.slots), result.slots, strict=True)
    return tuple(story(position, name, slot) for position, (name, slot) in enumerate(named))


def known(value: float | None) -> float:
    """A value that is not missing."""
    assert value is not None
    return value
