"""A finished search as one self-contained HTML page: no script, nothing fetched, light and dark."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from quadnas.latency.card import DeviceCard
from quadnas.report import facts
from quadnas.report.comparisons import compared_networks, comparison_sentence, comparison_table
from quadnas.report.figures import Events, curves
from quadnas.report.front import write_front
from quadnas.report.labels import Label, read_label
from quadnas.report.running import Running
from quadnas.report.sentences import sentence, with_error
from quadnas.report.why import stories
from quadnas.run.folder import RunFolder
from quadnas.search.front import read_front
from quadnas.search.result import SearchResult, SlotRecord
from quadnas.search.settings import SearchSettings

_WIDEST_PX, _HIGHEST_PX = 40, 60
_COLOURS = 6


def write_report(run: RunFolder, settings: SearchSettings, result: SearchResult, card: DeviceCard) -> Path:
    """Write ``report.html`` into a run whose lock is held; raises DataError (journal), MachineError (disk)."""
    front = read_front(settings, run.path) if settings.tighter_limits_ms else ()
    write_front(run, front)
    return run.write(facts.FILE_NAME, render_page(settings, result, run.journal.read(), card, front))


def render_page(
    settings: SearchSettings,
    result: SearchResult,
    events: Events,
    card: DeviceCard,
    front: Sequence[SearchResult] = (),
) -> str:
    """The page; the same run gives the same text. ``events`` are the lines of the journal.

    ``front``: the results under all limits, where the search had several on its first device.
    """
    records = facts.stages(result.slots)
    told = stories(result, events)
    networks = compared_networks(result, events)
    return _rendered(
        settings,
        card,
        events,
        title=f"{settings.space} on {card.device}: {facts.ms(result.latency_ms)}",
        result=result,
        running=None,
        interval_text=facts.interval_text(result.interval_ms),
        accuracy=facts.accuracy_text(settings, result),
        caveats=list(facts.caveats(records)),
        fixed_ms=facts.fixed_ms(result),
        scale=_scale(result),
        pictures=_pictures(records),
        families=_families(records),
        tables=list(_tables(result.slots, events, decided=True)),
        curves=curves(events, result.limit_ms, result.feasible_ms, result, front),
        front=front,
        stories=told,
        comparisons=comparison_table(networks),
        compared=comparison_sentence(networks),
        sentence=sentence,
        with_error=with_error,
        largest_share=max((story.share for story in told), default=0) or 1,
        learned=any(story.chosen.history for story in told),
        measured=any(story.chosen.gain is not None for story in told),
    )


def render_running(settings: SearchSettings, running: Running, events: Events, card: DeviceCard) -> str:
    """The page of a search that has no result yet."""
    posed = running.posed
    return _rendered(
        settings,
        card,
        events,
        title=running.title,
        result=None,
        running=running,
        tables=list(_tables(posed.slots, events, decided=False)),
        curves=curves(events, posed.limit_ms, posed.feasible_ms, None),
    )


def _rendered(settings: SearchSettings, card: DeviceCard, events: Events, **context: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(ms=facts.ms, percent=facts.percent, accuracy_range=facts.accuracy_range)
    return environment.get_template("page.html").render(
        settings=settings,
        card=card,
        conditions=facts.conditions(settings, card),
        notices=[event["text"] for event in events if event["event"] == "Notice"],
        settings_rows=list(_flat(settings.model_dump(exclude_none=True))),
        **context,
    )


@dataclass(frozen=True, slots=True)
class _Block:
    """A chosen block as a box of ``width`` x ``height`` px in the colour of its family."""

    label: Label
    latency_ms: float
    free: bool
    colour: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class _Picture:
    """The blocks of one stage."""

    stage: facts.StageRecord
    blocks: tuple[_Block, ...]


@dataclass(frozen=True, slots=True)
class _Cell:
    """One candidate of one slot; ``probability`` is None without architecture steps."""

    probability: float | None
    chosen: bool
    likeliest: bool


@dataclass(frozen=True, slots=True)
class _Table:
    """One stage's candidates with their prices, and a row of cells for every slot after its name."""

    stage: facts.StageRecord
    prices: tuple[tuple[str, float | None], ...]
    rows: tuple[tuple[str, tuple[_Cell, ...]], ...]


def _scale(result: SearchResult) -> dict[str, str]:
    """Where things lie on an axis from 0 ms to a little beyond all of them, as CSS."""
    spans: dict[str, tuple[float, float | None]] = {
        "range": result.feasible_ms,
        "latency": (result.latency_ms, None),
        "limit": (result.limit_ms, None),
    }
    if result.interval_ms:
        spans["band"] = (result.interval_ms.low, result.interval_ms.high)
    unit_ms = 1.02 * max(value for span in spans.values() for value in span if value is not None) / 100
    return {
        name: f"left:{low / unit_ms:.2f}%"
        + (f";width:{(high - low) / unit_ms:.2f}%" if high is not None else "")
        for name, (low, high) in spans.items()
    }


def _families(records: Sequence[facts.StageRecord]) -> dict[str, int]:
    """Every family that was chosen and costs something, with its colour."""
    names = dict.fromkeys(
        label.family
        for record in records
        for label, price in zip(record.chosen, record.chosen_ms, strict=True)
        if not facts.is_free(price)
    )
    return {name: number % _COLOURS for number, name in enumerate(names)}


def _pictures(records: Sequence[facts.StageRecord]) -> list[_Picture]:
    """Kernel as height and expansion as width, in proportion to the largest among all candidates."""
    families = _families(records)
    labels = [read_label(text) for record in records for slot in record.slots for text in slot.labels]
    largest = {
        letter: max((label.arguments.get(letter, 0.0) for label in labels), default=0.0) for letter in "ke"
    }

    def side(label: Label, letter: str, pixels: int) -> int:
        value = label.arguments.get(letter)
        return round(pixels * value / largest[letter]) if value else pixels // 2

    return [
        _Picture(
            record,
            tuple(
                _Block(
                    label,
                    price,
                    facts.is_free(price),
                    families.get(label.family, 0),
                    side(label, "e", _WIDEST_PX),
                    side(label, "k", _HIGHEST_PX),
                )
                for label, price in zip(record.chosen, record.chosen_ms, strict=True)
            ),
        )
        for record in records
    ]


def _tables(slots: Sequence[SlotRecord], events: Events, *, decided: bool) -> Iterator[_Table]:
    steps = [event for event in events if event["event"] == "ArchitectureStep"]
    names = iter(facts.slot_names(slots))
    last = iter(steps[-1]["probabilities"] if steps else [])
    for record in facts.stages(slots):
        rows = []
        for slot in record.slots:
            row = next(last, [None] * len(slot.labels))
            best = max(range(len(row)), key=lambda i: row[i] or 0.0) if steps else None
            cells = (_Cell(p, decided and i == slot.chosen, i == best) for i, p in enumerate(row))
            rows.append((next(names), tuple(cells)))
        slot = record.slots[0]
        yield _Table(record, tuple(zip(slot.labels, slot.latency_ms, strict=True)), tuple(rows))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as dotted names."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
