"""The devices: all of them in a list, one of them with all that its card says."""

import textwrap
from collections.abc import Iterator
from typing import Any

from quadnas.errors import QuadnasError
from quadnas.latency.card import DeviceCard, Sampled
from quadnas.latency.devices import available_devices, find_device
from quadnas.report.answer import Answer

_COLUMNS = 110
_PLOT = 61


def list_devices() -> Answer:
    """Every device: what it is, how its latency is known, and its error on held-out networks.

    A folder whose card cannot be read stands in the list with the reason.
    """
    rows: dict[str, Any] = {}
    titles = ("source", "precision", "batch", "held out", "in 5 %", "in 10 %")
    lines = [f"{'device':<28}{titles[0]:<11}{titles[1]:<12}" + "".join(f"{title:>9}" for title in titles[2:])]
    for name in available_devices():
        try:
            _, card = find_device(name)
        except QuadnasError as error:
            rows[name] = {"error": str(error)}
            lines += [f"{name:<28}unreadable", f"  {error}"]
            continue
        rows[name] = _row(card)
        held = card.held_out
        figures = (
            f"{held.models:>9,}{held.within_5:>9.1%}{held.within_10:>9.1%}" if held else f"{'unchecked':>10}"
        )
        lines.append(f"{name:<28}{card.source:<11}{card.precision:<12.11}{card.batch:>9}{figures}")
        lines.append(f"  {card.description}; {card.runtime}; data: {card.licence}")
    return rows, "\n".join(lines)


def show_device(device: str) -> Answer:
    """The card of a device, as it is and readably; raises ConfigError or DataError."""
    _, card = find_device(device)
    return card.model_dump(mode="json"), "\n".join([*_head(card), *_accuracy(card), *_operators(card)])


def _row(card: DeviceCard) -> dict[str, Any]:
    keys = ("description", "runtime", "source", "precision", "batch", "measured_batch", "licence")
    figures = card.held_out.model_dump() if card.held_out else {}
    return {key: getattr(card, key) for key in keys} | {"checked": bool(figures)} | figures


def _head(card: DeviceCard) -> Iterator[str]:
    low, high = card.batches
    batches = f"batch {card.batch}" + (f" ({low} to {high})" if low != high else "")
    yield f"{card.device}: {card.description}"
    yield f"{card.runtime}; {card.precision}; {batches}; measured at batch {card.measured_batch}"
    yield from _wrapped(f"{card.source}: {card.provenance}")
    yield f"data: {card.licence}"
    pairs = ", ".join(f"{first} + {last}" for first, last in card.fusion)
    yield from _wrapped(f"fused: {pairs or 'nothing'}")


def _accuracy(card: DeviceCard) -> Iterator[str]:
    """Held-out figures, quantiles as a plot of characters, families left out, winners."""
    yield ""
    held = card.held_out
    if held is None or card.error_quantiles is None:
        yield f"error: {card.accuracy}; quadnas predictors evaluate --data FILE checks it"
        return
    inside = "" if held.interval_90 is None else f"; {held.interval_90:.1%} inside their 90 % interval"
    yield from _wrapped(
        f"error on {held.models:,} held-out networks: {held.within_5:.1%} {held.within_10:.1%} "
        f"{held.within_15:.1%} within 5, 10, 15 %; rmspe {held.rmspe:.3f}, rank correlation "
        f"{held.spearman:.4f}{inside}"
    )
    yield "measured / predicted that so many networks stay below:"
    yield from _quantile_plot(card.error_quantiles)
    yield from _searched(card)
    if card.families_left_out:
        titles = ("models", "in 5 %", "in 10 %", "bias", "exact", "in 90 %-interval")
        yield f"{'family left out':<20}" + "".join(f"{title:>{max(9, len(title) + 2)}}" for title in titles)
    for left in card.families_left_out:
        inside = "" if left.interval_90 is None else f"{left.interval_90:>18.1%}"
        yield (
            f"{left.family:<20}{left.models:>9,}{left.within_5:>9.1%}{left.within_10:>9.1%}"
            f"{left.bias:>+9.1%}{left.exact:>9.1%}{inside}"
        )


def _searched(card: DeviceCard) -> Iterator[str]:
    """What is known of networks that a search picked, and of measurements that were repeated."""
    if found := card.winners:
        yield (
            f"searched networks: {found.bias - 1:.1%} slower than predicted on average, "
            f"{found.surrogate_bias - 1:.1%} with stand-ins ({found.searches} searches of {found.space})"
        )
    if again := card.rerun:
        yield from _wrapped(
            f"measured again on {again.repeated} networks of {again.space} at {again.input_size} pixels: "
            f"{again.repeated_within_5:.1%} within 5 %, {again.repeated_within_10:.1%} within 10 % of themselves; "
            f"of {again.winners} searched networks {again.winners_within:.1%} kept their limit at confidence "
            f"{again.confidence:g}; {again.disturbed:.1%} of the measurements were disturbed and thrown away"
        )


def _quantile_plot(quantiles: tuple[tuple[float, float], ...]) -> Iterator[str]:
    """One line per quantile on a common scale around 1, which is marked by a bar."""
    reach = max(0.1, *(abs(ratio - 1) for _, ratio in quantiles))
    middle = _PLOT // 2
    for level, ratio in quantiles:
        cells = [" "] * _PLOT
        cells[middle] = "|"
        position = middle + round((ratio - 1) / reach * middle)
        for index in range(min(middle, position), max(middle, position) + 1):
            cells[index] = "|" if index == middle else "-"
        cells[position] = "o"
        yield f"{level:>8.1%}{ratio:>8.3f}  {''.join(cells).rstrip()}"
    yield f"{'':>18}{1 - reach:<.2f}{'1':^{_PLOT - 8}}{1 + reach:>.2f}"


def _operators(card: DeviceCard) -> Iterator[str]:
    """Where each operator's price is founded, and what stands in for the others."""
    titles = ("height", "in", "out", "batch")
    yield ""
    yield f"{'operator':<18}{'basis':<13}" + "".join(f"{t:>11}" for t in titles) + "  kernels; strides"
    for op, ranges in card.sampled.items():
        for number, found in enumerate(ranges):
            yield f"{'' if number else op:<18}{_range_text(found)}"
            if found.source:
                yield from _wrapped(f"{'':<18}from {found.source}, error {found.error:.0%}", 20)
    yield f"a shape outside these ranges is extrapolated, error {card.extrapolation_error:.0%}"
    stand_ins = {op: rule for op, rule in card.surrogates.items() if op not in card.sampled}
    if stand_ins:
        yield "never measured, priced by a stand-in:"
    for op, rule in stand_ins.items():
        yield from _wrapped(
            f"{op:<18}{rule.factor:g} x {rule.reference}, error {rule.error:.0%}: {rule.reason}", 20
        )
    yield "any other operator has no price: the network then has no total"


def _range_text(found: Sampled) -> str:
    spans = "".join(f"{_span(*span):>11}" for span in (found.h, found.cin, found.cout, found.batches))
    kernels, strides = (",".join(map(str, values)) for values in (found.kernels, found.strides))
    return f"{found.basis:<13}{spans}  {kernels}; {strides}"


def _span(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low}-{high}"


def _wrapped(text: str, indent: int = 2) -> list[str]:
    return textwrap.wrap(text, _COLUMNS, subsequent_indent=" " * indent, break_on_hyphens=False)
