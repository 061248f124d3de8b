"""The additive back-end: every kernel is its physical floor plus a non-negative sum of terms."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadnas.errors import DataError
from quadnas.latency.card import DeviceCard, DeviceFacts, Sampled
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import BACK_ENDS, Arrays, Coverage, LatencyModel, Price
from quadnas.latency.names import parts
from quadnas.latency.terms.general import Shapes, Vector, peak_work
from quadnas.latency.terms.known import KNOWN_TERMS
from quadnas.latency.terms.nce import ENGINE_CYCLES, MACS_PER_CYCLE

MAX_MS = 1e6  # a coefficient beyond it is no measurement


def check_terms(facts: DeviceFacts) -> None:
    """Raise DataError if the card names an operator or a term that this back-end does not have."""
    for op, names in (*facts.terms.items(), *facts.candidates.items()):
        if unknown := [name for name in names if name not in KNOWN_TERMS.get(op, {})]:
            raise DataError(
                f"device {facts.device!r}: unknown terms of {op!r}: {', '.join(unknown)}; "
                f"known: {', '.join(KNOWN_TERMS.get(op, {})) or 'none'}"
            )


def floor_ms(facts: DeviceFacts, op: str, shapes: Shapes) -> Vector:
    """The least time the device could need: launch plus the larger of arithmetic and traffic at their peaks."""
    macs, elements = peak_work(op, shapes)
    if ENGINE_CYCLES in facts.terms.get(op, ()):
        macs = MACS_PER_CYCLE * KNOWN_TERMS[op][ENGINE_CYCLES](shapes)
    arithmetic_ms = macs / (facts.peak_gmacs_per_second * 1e6)
    traffic_ms = elements * facts.bytes_per_element / (facts.peak_gbytes_per_second * 1e6)
    return facts.launch_us * 1e-3 + np.maximum(arithmetic_ms, traffic_ms)


def term_values(facts: DeviceFacts, op: str, shapes: Shapes) -> NDArray[np.float64]:
    """The device's terms of an operator: (kernels, terms)."""
    return np.stack([KNOWN_TERMS[op][name](shapes) for name in facts.terms[op]], axis=1)


@dataclass(frozen=True, slots=True)
class _Part:
    """One single operator of a kernel: what prices its shape, and how well."""

    op: str
    shape: Kernel
    factor: float
    error: float
    reasons: tuple[str, ...]


@BACK_ENDS.register("additive")
class Additive(LatencyModel):
    """One array of coefficients (ms per unit of each term) per measured operator, named after it."""

    def __init__(self, card: DeviceCard, arrays: Arrays, batch: int) -> None:
        super().__init__(card, arrays, batch)
        self._known: dict[Kernel, tuple[_Part | str, ...]] = {}  # what a kernel consists of never changes
        check_terms(card)
        if set(arrays) != set(card.sampled):
            raise DataError(
                f"device {card.device!r}: the arrays are of {sorted(arrays)}, the card of {sorted(card.sampled)}"
            )
        for op, values in arrays.items():
            expected = (len(card.terms.get(op, ())),)
            if values.shape != expected or values.dtype != np.float64:
                raise DataError(
                    f"device {card.device!r}: the array {op!r} is {values.dtype} of shape {values.shape}, "
                    f"not float64 of shape {expected}"
                )
            if not np.all((values >= 0) & (values <= MAX_MS)):
                raise DataError(
                    f"device {card.device!r}: the array {op!r} holds a value outside [0, {MAX_MS:g}]"
                )

    def price(self, kernels: Sequence[Kernel]) -> list[Price]:
        """The price of every kernel; networks repeat their kernels, so each is priced once."""
        _require_batch(kernels, self.batch)
        index: dict[Kernel, int] = {}
        positions = [index.setdefault(kernel, len(index)) for kernel in kernels]
        prices = self._price(list(index))
        return [prices[position] for position in positions]

    def _price(self, kernels: Sequence[Kernel]) -> list[Price]:
        """Operator by operator, each in one product over all kernels."""
        found: list[_Part] = []
        owners: list[int] = []
        refused: dict[int, str] = {}
        for owner, kernel in enumerate(kernels):
            for answer in self._parts(kernel):
                if isinstance(answer, _Part):
                    found.append(answer)
                    owners.append(owner)
                else:
                    refused[owner] = answer
        cost_ms = self._cost_ms(found)
        total_ms = [0.0] * len(kernels)
        spread_ms = [0.0] * len(kernels)
        reasons: dict[int, dict[str, None]] = {}
        for owner, priced, part_ms in zip(owners, found, cost_ms.tolist(), strict=True):
            total_ms[owner] += part_ms
            spread_ms[owner] += part_ms * priced.error
            if priced.reasons:
                reasons.setdefault(owner, {}).update(dict.fromkeys(priced.reasons))
        return [
            _as_price(total, spread, reasons.get(owner), refused.get(owner))
            for owner, (total, spread) in enumerate(zip(total_ms, spread_ms, strict=True))
        ]

    def _parts(self, kernel: Kernel) -> tuple[_Part | str, ...]:
        if kernel not in self._known:
            self._known[kernel] = tuple(self._part(part) for part in parts(kernel, self.card.folded))
        return self._known[kernel]

    def _part(self, part: Kernel) -> _Part | str:
        """What prices one operator, or why nothing does."""
        card = self.card
        factor, error, reasons = 1.0, 0.0, []
        op = part.op
        if op not in card.sampled and (rule := card.surrogates.get(op)):
            factor, error = rule.factor, rule.error
            reasons.append(f"{op} priced as {factor:g} x {rule.reference}: {rule.reason}")
            op = rule.reference
        if op not in card.sampled:
            known = ", ".join(sorted({*card.sampled, *card.surrogates}))
            return f"{op!r} was never measured on {card.device} and has no stand-in; priced are: {known}"
        nearest, outside = _nearest(card.sampled[op], part)
        error += nearest.error
        if nearest.source:
            reasons.append(f"{op} transferred from {nearest.source}")
        if outside:
            error += card.extrapolation_error
            reasons.append(f"{op} extrapolated: {outside[0]}")
        return _Part(op, part, factor, error, tuple(reasons))

    def _cost_ms(self, found: Sequence[_Part]) -> Vector:
        cost_ms = np.zeros(len(found))
        by_op: dict[str, list[int]] = {}
        for index, part in enumerate(found):
            by_op.setdefault(part.op, []).append(index)
        for op, indices in by_op.items():
            shapes = Shapes.of([found[i].shape for i in indices])
            factors = np.array([found[i].factor for i in indices])
            cost_ms[indices] = factors * operator_ms(self.card, op, shapes, self.arrays[op])
        return cost_ms


def operator_ms(facts: DeviceFacts, op: str, shapes: Shapes, coefficients: NDArray[np.float64]) -> Vector:
    """Milliseconds of one operator on many shapes."""
    return floor_ms(facts, op, shapes) + term_values(facts, op, shapes) @ coefficients


def sampled_ranges(kernels: Sequence[Kernel]) -> dict[str, tuple[Sampled, ...]]:
    """What a set of measured single operators covers: one measured range per operator."""
    by_op: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        by_op.setdefault(kernel.op, []).append(kernel)
    return {
        op: (
            Sampled(
                batches=_range([k.batch for k in group]),
                h=_range([k.h for k in group]),
                cin=_range([k.cin for k in group]),
                cout=_range([k.cout for k in group]),
                kernels=tuple(sorted({k.kernel for k in group})),
                strides=tuple(sorted({k.stride for k in group})),
            ),
        )
        for op, group in sorted(by_op.items())
    }


def _range(values: list[int]) -> tuple[int, int]:
    return min(values), max(values)


def _nearest(ranges: Sequence[Sampled], part: Kernel) -> tuple[Sampled, list[str]]:
    """The range that a kernel leaves in the fewest dimensions, the first of equals, and how it leaves it."""
    found = [(sampled, _outside(sampled, part)) for sampled in ranges]
    return min(found, key=lambda pair: len(pair[1]))


def _outside(sampled: Sampled, part: Kernel) -> list[str]:
    """Every dimension in which a kernel leaves a range."""
    spans = (
        ("height", part.h, sampled.h),
        ("width", part.w, sampled.h),
        ("input channels", part.cin, sampled.cin),
        ("output channels", part.cout, sampled.cout),
        ("batch", part.batch, sampled.batches),
    )
    choices = (
        ("kernel", part.kernel, sampled.kernels),
        ("stride", part.stride, sampled.strides),
    )
    return [
        f"{name} {value} outside the {sampled.basis} {low if low == high else f'{low}-{high}'}"
        for name, value, (low, high) in spans
        if not low <= value <= high
    ] + [
        f"{name} {value} not among the {sampled.basis} {', '.join(map(str, allowed))}"
        for name, value, allowed in choices
        if value not in allowed
    ]


def _require_batch(kernels: Sequence[Kernel], batch: int) -> None:
    for kernel in kernels:
        if kernel.batch != batch:
            raise ValueError(
                f"{kernel} is not of the model's batch {batch}: make kernels of operators with model.kernels()"
            )


def _as_price(total_ms: float, spread_ms: float, reasons: Iterable[str] | None, refusal: str | None) -> Price:
    if refusal:
        return Price(None, Coverage.UNCOVERED, refusal)
    if reasons:
        return Price(total_ms, Coverage.SURROGATE, "; ".join(reasons), spread_ms / total_ms)
    return Price(total_ms, Coverage.EXACT)
