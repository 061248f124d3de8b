"""What a page can say of a search that still runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from quadnas.report.facts import cost, ms, percent
from quadnas.report.figures import Events
from quadnas.search.result import SlotRecord

_RECENT = 20


@dataclass(frozen=True, slots=True)
class Posed:
    """A search that has found nothing yet: its slots (``chosen`` says nothing), limit and feasible range in ms."""

    slots: tuple[SlotRecord, ...]
    limit_ms: float
    feasible_ms: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Running:
    """Where a search in ``folder`` stood when it was ``written`` (a time in words), and whether it goes on."""

    posed: Posed
    folder: Path
    written: str
    goes_on: bool
    refresh_seconds: int
    events: Events

    @property
    def title(self) -> str:
        """Phase, step and steps."""
        steps = [event for event in self.events if event["event"] in {"PhaseStarted", "WeightStep"}]
        if not steps:
            return "The search begins"
        last = steps[-1]
        return f"{last['phase']}: step {last['step']:,} of {last['steps']:,}"

    @property
    def found(self) -> str:
        """The architecture, once it is derived; empty before."""
        derived = [event["architecture"] for event in self.events if event["event"] == "Derived"]
        return derived[-1] if derived else ""

    @property
    def tiles(self) -> Iterator[tuple[str, str, str]]:
        """Name, value and remark of the figures that count."""
        weight = [event for event in self.events if event["event"] == "WeightStep"][-_RECENT:]
        architecture = [event for event in self.events if event["event"] == "ArchitectureStep"][-_RECENT:]
        if weight:
            loss, accuracy = (fmean(event[key] for event in weight) for key in ("loss", "accuracy"))
            yield "Training loss", f"{loss:.4g}", f"{percent(accuracy)} correct; mean of {len(weight)} steps"
        if architecture:
            loss, accuracy = (fmean(event[key] for event in architecture) for key in ("loss", "accuracy"))
            remark = f"{percent(accuracy)} correct; mean of {len(architecture)} steps"
            yield "Loss of the architecture steps", f"{loss:.4g}", remark
            last = architecture[-1]
            yield "Expected latency", ms(last["expected_ms"]), f"limit {last['limit_ms']:g} ms"
            remark = f"no limit holds it yet; multiplier {last['multiplier']:.3g}"
            yield "Most probable network", ms(last["argmax_ms"]), remark
            for limit in last["beside"]:
                expected, argmax, at_most = (
                    cost(limit[key], limit["unit"]) for key in ("expected", "argmax", "limit")
                )
                yield (
                    f"Expected, {limit['name']}",
                    expected,
                    f"limit {at_most}; most probable network {argmax}",
                )
