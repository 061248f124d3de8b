"""Why a slot holds its block, in plain words that the numbers bear out."""

import math
from collections.abc import Callable, Iterator, Sequence

from quadnas.report.facts import is_free, ms, percent
from quadnas.report.why import Candidate, Story, known


def sentence(story: Story) -> str:
    """What the chosen candidate of a slot costs and gains, against the next best that would also fit."""
    return " ".join(
        [_cost(story), *(_by_gain(story) if story.chosen.gain is not None else _by_chance(story))]
    )


def with_error(value: float, error: float | None) -> str:
    """``0.012 +- 0.003``: a value to the digit at which its standard error begins."""
    if not error:
        return f"{value:.2g}"
    digits = max(0, -math.floor(math.log10(float(f"{error:.0e}"))))
    return f"{value:.{digits}f} +- {error:.{digits}f}"


def _cost(story: Story) -> str:
    chosen = story.chosen
    if chosen.latency_ms is None or is_free(chosen.latency_ms):
        return f"{chosen.name} costs nothing."
    return f"{chosen.name} takes {ms(chosen.latency_ms)}, {percent(story.share)} of the network."


def _by_gain(story: Story) -> Iterator[str]:
    chosen = story.chosen
    gain, error = known(chosen.gain), known(chosen.error)
    side = "lower" if gain >= 0 else "higher"
    size = with_error(abs(gain), error)
    yield f"In the search the loss was {size} {side} with it than with the slot's average candidate."
    rivals = [c for c in story.candidates if not c.chosen and c.gain is not None]
    fitting = [c for c in rivals if c.fits]
    if fitting:
        yield from _against(chosen, max(fitting, key=lambda c: known(c.gain)))
    else:
        yield _alone(story)
    if dear := _first_beyond(rivals, lambda c: c.gain, gain):
        yield f"{dear.name} gains {known(dear.gain) - gain:.2g} more, but {_too_dear(dear)}."


def _against(chosen: Candidate, rival: Candidate) -> Iterator[str]:
    """The chosen one against the best other one that would also fit."""
    more = known(chosen.gain) - known(rival.gain)
    error = math.hypot(known(chosen.error), known(rival.error))
    slower_ms = known(chosen.latency_ms) - known(rival.latency_ms)
    if more >= 0:
        pace = f", for {ms(slower_ms)} more: {more / slower_ms:.2g} per ms" if slower_ms > 0 else ""
        pace = f", and is {ms(-slower_ms)} faster" if slower_ms < 0 else pace
        next_best = f"{rival.name}, the next best that would also fit"
        yield f"That is {with_error(more, error)} better than {next_best}{pace}."
    else:
        pace = f" and is {ms(slower_ms)} faster" if slower_ms > 0 else ""
        pace = f" for {ms(-slower_ms)} more" if slower_ms < 0 else pace
        yield f"{rival.name} would also fit and was measured {with_error(-more, error)} better{pace}."
    if abs(more) < 2 * error:
        yield "The difference is less than twice its error: it may be chance."


def _by_chance(story: Story) -> Iterator[str]:
    """By probability, where no gains were measured."""
    chosen = story.chosen
    if chosen.probability is None:
        yield "This search learned nothing of single candidates: it compared whole networks."
        return
    rivals = [c for c in story.candidates if not c.chosen and c.latency_ms is not None]
    fitting = [c for c in rivals if c.fits]
    yield f"Its probability is {percent(chosen.probability)}; {percent(1 / (1 + len(rivals)))} would be chance."
    if fitting:
        rival = max(fitting, key=lambda c: known(c.probability))
        slower_ms = known(chosen.latency_ms) - known(rival.latency_ms)
        pace = f", {ms(abs(slower_ms))} {'faster' if slower_ms > 0 else 'slower'}" if slower_ms else ""
        chance = known(rival.probability)
        place = "more" if chance > chosen.probability else "next most"
        yield f"Of the others that would fit, {rival.name} is the {place} probable one: {percent(chance)}{pace}."
    else:
        yield _alone(story)
    if dear := _first_beyond(rivals, lambda c: c.probability, chosen.probability):
        yield f"{dear.name} is more probable, {percent(known(dear.probability))}, but {_too_dear(dear)}."


def _alone(story: Story) -> str:
    if len(story.candidates) == 1:
        return "The slot has no other candidate."
    return "No other candidate would fit."


def _first_beyond(
    rivals: Sequence[Candidate], key: Callable[[Candidate], float | None], value: float
) -> Candidate | None:
    """The best of those that would not fit, if it is better than ``value``."""
    dear = [c for c in rivals if not c.fits and known(key(c)) > value]
    return max(dear, key=lambda c: known(key(c)), default=None)


def _too_dear(candidate: Candidate) -> str:
    return f"would not fit: about {ms(known(candidate.network_ms))} in all"
