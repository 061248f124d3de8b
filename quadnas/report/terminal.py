"""The end of a search in plain text: the architecture and the answer, in less than 100 columns."""

import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from quadnas.latency.card import DeviceCard
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
from quadnas.search.result import SearchResult
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


def _rows(settings: SearchSettings, result: SearchResult, card: DeviceCard) -> Iterator[tuple[str, str]]:
    low_ms, high_ms = result.feasible_ms
    yield "latency", f"{ms(result.latency_ms)} on {card.device}, predicted, not measured"
    yield "for", conditions(settings, card)
    held = f"; held to it: {ms(result.bound_ms)}" if result.bound_ms != result.latency_ms else ""
    yield "limit", f"{result.limit_ms:g} ms{held}; the space reaches {ms(low_ms)} to {ms(high_ms)}"
    yield "error", f"{interval_text(result.interval_ms)}; {card.accuracy}"
    if result.scale:
        yield "scale", result.scale
    shares = ", ".join(f"{percent(share)} {name}" for name, share in result.shares.items())
    operators = dict.fromkeys(record.op for record in result.surrogates)
    surrogates = f"; surrogates: {', '.join(operators)}" if operators else ""
    yield "coverage", f"{shares} of the predicted ms{surrogates}"
    yield "accuracy", accuracy_text(result)
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
