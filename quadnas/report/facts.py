"""What the page and the terminal both say of a result, worked out once."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from quadnas.latency.card import DeviceCard
from quadnas.report.labels import Label, read_label
from quadnas.search.front import weights_origin
from quadnas.search.result import IntervalRecord, SearchResult, SlotRecord
from quadnas.search.settings import SearchSettings

FILE_NAME = "report.html"


def ms(value: float) -> str:
    """Milliseconds with the digits that a prediction deserves, such as ``287.4 ms`` or ``2.871 ms``."""
    return f"{value:.{1 if value >= 100 else 2 if value >= 10 else 3}f} ms"


def cost(value: float, unit: str) -> str:
    """What a limit is held against: a latency as ``ms`` has it, or a count such as ``1,234,567 parameters``."""
    return ms(value) if unit == "ms" else f"{value:,.0f} {unit}"


def percent(fraction: float) -> str:
    """A fraction as ``84.2%``."""
    return f"{fraction:.1%}"


def interval_text(interval: IntervalRecord | None) -> str:
    """Where a measurement will lie, and whether measurements have checked that."""
    if interval is None:
        return "unknown: the device's predictor was never checked on measured networks"
    unchecked = "" if interval.calibrated else ", uncalibrated: parts are priced by stand-ins or extrapolated"
    return f"{interval.confidence:.0%} interval {ms(interval.low)} to {ms(interval.high)}{unchecked}"


@dataclass(frozen=True, slots=True)
class StageRecord:
    """Consecutive slots of one stage with the same maps, candidates and prices; ``number`` counts from 1."""

    number: int
    slots: tuple[SlotRecord, ...]

    @property
    def chosen(self) -> tuple[Label, ...]:
        """The chosen candidate of every slot."""
        return tuple(read_label(slot.labels[slot.chosen]) for slot in self.slots)

    @property
    def chosen_ms(self) -> tuple[float, ...]:
        """Predicted ms of every chosen candidate; NaN where it has no price."""
        prices = (slot.latency_ms[slot.chosen] for slot in self.slots)
        return tuple(math.nan if price is None else price for price in prices)

    @property
    def latency_ms(self) -> float:
        """Predicted ms of all chosen candidates together."""
        return math.fsum(self.chosen_ms)

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Candidates without a price, in words."""
        prices = zip(self.slots[0].labels, self.slots[0].latency_ms, strict=True)
        return tuple(read_label(text).full for text, price in prices if price is None)

    @property
    def alike_kernels(self) -> tuple[int, ...]:
        """The candidate kernels that see the same pixels on the training map, if there are several.

        On a map of side m an odd kernel reaches every pixel from every pixel as soon as k >= 2 m - 1; what a
        larger one adds always falls on padding.
        """
        labels = (read_label(text) for text in self.slots[0].labels)
        kernels = {int(label.arguments["k"]) for label in labels if "k" in label.arguments}
        alike = sorted(kernel for kernel in kernels if kernel >= 2 * self.slots[0].train_map - 1)
        return tuple(alike) if len(alike) > 1 else ()


def stages(slots: Sequence[SlotRecord]) -> tuple[StageRecord, ...]:
    """The slots in order, grouped."""
    groups = groupby(slots, lambda s: (s.stage, s.labels, s.latency_ms, s.train_map, s.deployed_map))
    return tuple(StageRecord(key[0] + 1, tuple(slots)) for key, slots in groups)


def slot_names(slots: Sequence[SlotRecord]) -> tuple[str, ...]:
    """``2.3`` for the third slot of the second stage, and so on in the order of the slots."""
    places = (range(1, 1 + len(list(group))) for _, group in groupby(slots, lambda slot: slot.stage))
    numbers = (number for stage in places for number in stage)
    return tuple(f"{slot.stage + 1}.{number}" for slot, number in zip(slots, numbers, strict=True))


def fixed_ms(result: SearchResult) -> float:
    """Predicted ms of everything outside the slots: stem, down-sampling, head."""
    return result.latency_ms - math.fsum(stage.latency_ms for stage in stages(result.slots))


def is_free(price: float) -> bool:
    """Whether a candidate runs no operator and so lets its input through (an uncovered one has no price)."""
    return price == 0


def caveats(records: Sequence[StageRecord]) -> Iterator[str]:
    """A sentence for every stage with candidates that had no price, or whose kernels could not be told apart.

    Slots of one stage that differ, as where its first block reduces the map, are told of together.
    """
    for number, group in groupby(records, lambda record: record.number):
        parts = tuple(group)
        if unpriced := dict.fromkeys(name for part in parts for name in part.unpriced):
            yield (
                f"Stage {number} could not use {', '.join(unpriced)}: the device has no price for some of their "
                "operators."
            )
        for side, alike in dict.fromkeys((part.slots[0].train_map, part.alike_kernels) for part in parts):
            if alike:
                names = f"{', '.join(map(str, alike[:-1]))} and {alike[-1]}"
                yield (
                    f"Stage {number} was trained on {side}x{side} maps, where kernels {names} see the "
                    "same pixels: the search could not learn which of them is better."
                )


def conditions(settings: SearchSettings, card: DeviceCard) -> str:
    """What the latency stands for: input, batch, precision, runtime."""
    side = settings.input_size
    batch = settings.batch or card.batch
    return f"{side}x{side} pixels, batch {batch}, {card.precision}, {card.runtime}"


def accuracy_interval(result: SearchResult) -> tuple[float, float]:
    """Where the accuracy lies with 95 %, the test images being a sample; the chance in training comes on top.

    Source: Wilson, Journal of the American Statistical Association 22 (1927).
    """
    from scipy.stats import binomtest  # noqa: PLC0415 (takes a second)

    correct = round(result.accuracy * result.test_images)
    interval = binomtest(correct, result.test_images).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def accuracy_range(result: SearchResult) -> str:
    """The interval of the accuracy in words."""
    return " to ".join(map(percent, accuracy_interval(result)))


def accuracy_text(settings: SearchSettings, result: SearchResult) -> str:
    """Accuracy with what it was measured on, and with which weights."""
    side, origin = result.train_size, weights_origin(settings)
    weights = (
        f"retrained; {percent(result.initial_accuracy)} with {origin} weights"
        if result.retrained
        else f"{origin} weights, not retrained"
    )
    return (
        f"{percent(result.accuracy)} of {result.test_images:,} test images at {side}x{side} pixels, 95% interval "
        f"{accuracy_range(result)} ({weights})"
    )
