"""What comparisons of whole networks did to a choice: which were compared, their losses, which one won."""

from collections.abc import Sequence
from dataclasses import dataclass

from quadnas.report.facts import ms, slot_names
from quadnas.report.figures import Events
from quadnas.report.labels import read_label
from quadnas.search.result import SearchResult

SHOWN = 10
"""Of the networks in a table, the best first."""


@dataclass(frozen=True, slots=True)
class ComparedNetwork:
    """A network with its loss on held-out images, the supernet's weights in it.

    ``latency_ms`` by the sum of the blocks' prices; ``differences``: slot and block where it has another one.
    """

    architecture: str
    loss: float
    latency_ms: float
    differences: tuple[tuple[str, str], ...]
    chosen: bool


def compared_networks(result: SearchResult, events: Events) -> tuple[ComparedNetwork, ...]:
    """The networks that were compared for the result, by their losses; of a front, for its loosest limit.

    Those that a stopped run had compared before are compared again: each stands there once.
    """
    choices = [number for number, event in enumerate(events) if event["event"] == "Derived"]
    start, end = ([-1, *choices][-2], choices[-1]) if choices else (0, 0)
    told = (event for event in events[start + 1 : end] if event["event"] == "Compared")
    losses = {event["architecture"]: event["loss"] for event in told}
    names = slot_names(result.slots)

    def network(architecture: str, loss: float) -> ComparedNetwork:
        labels = architecture.replace("|", ",").split(",")
        latency_ms, differences = result.latency_ms, []
        for name, slot, label in zip(names, result.slots, labels, strict=True):
            own = slot.labels.index(label)
            if own != slot.chosen:
                latency_ms += (slot.latency_ms[own] or 0.0) - (slot.latency_ms[slot.chosen] or 0.0)
                differences.append((name, read_label(label).full))
        chosen = architecture == result.architecture
        return ComparedNetwork(architecture, loss, latency_ms, tuple(differences), chosen)

    return tuple(network(*one) for one in sorted(losses.items(), key=lambda one: one[1]))


def comparison_sentence(found: Sequence[ComparedNetwork]) -> str:
    """Where the chosen one stands among them; empty without comparisons."""
    if not found:
        return ""
    start = (
        f"{len(found):,} networks were compared by their loss on held-out images with the supernet's weights"
    )
    place = next((number for number, one in enumerate(found, 1) if one.chosen), None)
    if place is None:
        return f"{start}; the chosen one is none of them."
    own, others = found[place - 1], [one for one in found if not one.chosen]
    if not others:
        return f"One network was compared, the chosen one: its loss is {own.loss:.4g}."
    rival = others[0]
    first = rival.differences[0]
    where = f"{first[1]} in {first[0]}" + (
        f" and {len(rival.differences) - 1} more" * (len(rival.differences) > 1)
    )
    rank = "the lowest" if place == 1 else f"number {place} from below"
    return (
        f"{start}. That of the chosen one, {own.loss:.4g}, is {rank}; the best other one has {rival.loss:.4g} at "
        f"about {ms(rival.latency_ms)}, with {where}."
    )


def comparison_table(found: Sequence[ComparedNetwork]) -> list[tuple[str, str, str]]:
    """Loss, latency in ms and differences to the chosen one of the best ``SHOWN``, and of the chosen one."""
    return [
        (
            f"{one.loss:.4f}",
            f"{one.latency_ms:.4g}",
            "chosen" if one.chosen else ", ".join(f"{slot} {name}" for slot, name in one.differences),
        )
        for number, one in enumerate(found)
        if number < SHOWN or one.chosen
    ]
