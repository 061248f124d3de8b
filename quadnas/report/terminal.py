"""The end of a search in plain text, in less than 100 columns: architecture, answer, why every block is there."""

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from quadnas.errors import ConfigError
from quadnas.latency.card import DeviceCard
from quadnas.report.answer import Answer
from quadnas.report.comparisons import compared_networks, comparison_sentence, comparison_table
from quadnas.report.facts import (
    FILE_NAME,
    StageRecord,
    accuracy_text,
    caveats,
    conditions,
    fixed_ms,
    interval_text,
    is_free,
    ms,
    percent,
    stages,
)
from quadnas.report.labels import printable
from quadnas.report.sentences import sentence, with_error
from quadnas.report.why import Candidate, Story, stories
from quadnas.run.folder import RunFolder
from quadnas.search.result import SearchResult, result_data
from quadnas.search.settings import SearchSettings

_COLUMNS = 99
_UNBROKEN = "\N{NO-BREAK SPACE}"


def architecture_text(result: SearchResult) -> str:
    """The chosen blocks stage by stage; runs of equal blocks are merged, as in ``3x k7 e4``.

    The family stands in front of the arguments where the network has more than one. ASCII if the labels are.
    """
    records = stages(result.slots)
    families = {
        label.family
        for record in records
        for label, price in zip(record.chosen, record.chosen_ms, strict=True)
        if not is_free(price)
    }
    only = families.pop() if len(families) == 1 else None
    lines = [f"stage      map      latency  blocks{f' ({only})' if only else ''}"]
    for record in records:
        side = record.slots[0].deployed_map
        start = f"{record.number:>5}  {f'{side}x{side}':>7}  {ms(record.latency_ms):>11}  "
        lines.append(_hanging(start, ", ".join(_runs(record, only))))
    lines.append(f"{'rest':>5}  {'':>7}  {ms(fixed_ms(result)):>11}  stem, down-sampling, head")
    lines.append(f"{'all':>5}  {'':>7}  {ms(result.latency_ms):>11}  {result.parameters:,} parameters")
    return printable("\n".join(lines))


def short_answer(result: SearchResult) -> dict[str, Any]:
    """What one line of JSON says: with several devices, latency and limit by device; limited sizes with theirs."""
    data = result_data(result)
    sizes = {
        "sizes": {name: {"value": size.value, "limit": size.limit} for name, size in result.sizes.items()}
    }
    return {
        **{key: data[key] for key in ("architecture", "latency_ms", "limit_ms", "accuracy")},
        **(sizes if result.sizes else {}),
    }


def summary_text(settings: SearchSettings, result: SearchResult, card: DeviceCard, folder: Path) -> str:
    """The answer with its error band, coverage and accuracy, what to beware of, and the files in ``folder``.

    Lines stay below 100 columns, but a path is never broken.
    """
    lines = [_hanging(f"{name:<10}", text) for name, text in _rows(settings, result, card)]
    files = {**result.files, "report": FILE_NAME}
    width = max(map(len, files))
    for position, (name, file) in enumerate(files.items()):
        lines.append(f"{'' if position else 'files':<10}{name:<{width}}  {folder / file}")
    return printable("\n".join(lines))


def why_text(folder: RunFolder, result: SearchResult, slot: str | None) -> Answer:
    """The answer of ``quadnas why``: every slot in words and the networks that were compared in the end,
    or one ``slot`` with all its candidates.

    Raises ConfigError if there is no such slot, DataError (journal).
    """
    events = folder.journal.read()
    told = {story.name: story for story in stories(result, events)}
    if slot is not None and slot not in told:
        raise ConfigError(f"no slot {slot!r}: this network has the slots {', '.join(told)}")
    chosen = [story for story in told.values() if slot in (None, story.name)]
    lines = [
        _hanging(f"{story.name:<6}", sentence(story).replace(" ms", f"{_UNBROKEN}ms")) for story in chosen
    ]
    networks = compared_networks(result, events)
    if slot is not None:
        lines += ["", *_table(told[slot])]
    elif networks:
        lines += [
            "",
            _hanging("", comparison_sentence(networks)),
            f"{'loss':>8}{'about ms':>10}  against the chosen one",
        ]
        lines += [_hanging(f"{loss:>8}{cost:>10}  ", text) for loss, cost, text in comparison_table(networks)]
    keys = [field.name for field in fields(Candidate)]
    rows = {
        story.name: {
            "latency_share": story.share,
            "why": sentence(story),
            "candidates": [{key: getattr(one, key) for key in keys} for one in story.candidates],
        }
        for story in chosen
    }
    compared = {"compared": [asdict(network) for network in networks]} if networks and slot is None else {}
    return {**rows, **compared}, printable("\n".join(lines))


def _rows(settings: SearchSettings, result: SearchResult, card: DeviceCard) -> Iterator[tuple[str, str]]:
    low_ms, high_ms = result.feasible_ms
    yield "latency", f"{ms(result.latency_ms)} on {card.device}, predicted, not measured"
    yield "for", conditions(settings, card)
    held = f"; held to it: {ms(result.bound_ms)}" if result.bound_ms != result.latency_ms else ""
    yield "limit", f"{result.limit_ms:g} ms{held}; the space reaches {ms(low_ms)} to {ms(high_ms)}"
    for name, also in result.also.items():
        low_ms, high_ms = also.feasible_ms
        held = f"; held to it: {ms(also.bound_ms)}" if also.bound_ms != also.latency_ms else ""
        reach = f"the space reaches {ms(low_ms)} to {ms(high_ms)}; {interval_text(also.interval_ms)}"
        yield "also", f"{ms(also.latency_ms)} on {name}, limit {also.limit_ms:g} ms{held}; {reach}"
    for size in result.sizes.values():
        low, high = size.feasible
        reach = f"the space reaches {low:,} to {high:,}"
        yield "also", f"{size.value:,} {size.unit}, limit {size.limit:,}; {reach}"
    yield "error", f"{interval_text(result.interval_ms)}; {card.accuracy}"
    if result.scale:
        yield "scale", result.scale
    shares = ", ".join(f"{percent(share)} {name}" for name, share in result.shares.items())
    operators = dict.fromkeys(record.op for record in result.surrogates)
    surrogates = f"; surrogates: {', '.join(operators)}" if operators else ""
    yield "coverage", f"{shares} of the predicted ms{surrogates}"
    yield "accuracy", accuracy_text(settings, result)
    if result.demonstration:
        yield "beware", f"a demonstration: {result.data_note}"
    elif result.data_note:
        yield "data", result.data_note
    for note in caveats(stages(result.slots)):
        yield "beware", note


def _runs(record: StageRecord, only: str | None) -> Iterator[str]:
    """Merged runs of equal blocks, each kept on one line."""
    texts = (label.short or label.family if label.family == only else label.full for label in record.chosen)
    for text, run in groupby(texts):
        count = sum(1 for _ in run)
        yield (f"{count}x {text}" if count > 1 else text).replace(" ", _UNBROKEN)


def _hanging(start: str, text: str) -> str:
    """``text`` after ``start``, wrapped and indented by the width of ``start``."""
    return textwrap.fill(
        text,
        _COLUMNS,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_on_hyphens=False,
    ).replace(_UNBROKEN, " ")


def _table(story: Story) -> Iterator[str]:
    """One line for each candidate under titles; a column of which nothing is known is left out."""
    rows = [("candidate", "ms", "network ms", "fits", "probability", "gain")]
    for one in story.candidates:
        cells = (
            one.name,
            "no price" if one.latency_ms is None else f"{one.latency_ms:.4g}",
            "" if one.network_ms is None else f"{one.network_ms:.4g}",
            "chosen" if one.chosen else "yes" if one.fits else "no",
            "" if one.probability is None else percent(one.probability),
            "" if one.gain is None else with_error(one.gain, one.error),
        )
        rows.append(cells)
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    width = max(map(len, columns[0]))
    for name, *values in zip(*columns, strict=True):
        yield f"{name:<{width}}" + "".join(f"{value:>17}" for value in values)
