"""The card of a device: what its latency model stands for, and how well it was checked."""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from quadnas.config import Settings, parse_yaml, validated, write_yaml
from quadnas.errors import ConfigError, DataError

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]

_SEAL = "sha256: "


def _ascending(pairs: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    levels = [level for level, _ in pairs]
    ratios = [ratio for _, ratio in pairs]
    if levels != sorted(set(levels)) or ratios != sorted(ratios):
        raise ValueError("levels ascend, with ratios that do not fall")
    if not 0 < levels[0] <= 0.5 <= levels[-1] < 1:
        raise ValueError("levels lie between 0 and 1, on both sides of 0.5")
    return pairs


Quantiles = Annotated[tuple[tuple[Share, Positive], ...], Field(min_length=2), AfterValidator(_ascending)]


class SurrogateRule(Settings):
    """Prices an operator that was never measured as ``factor`` times ``reference`` on the same shape.

    ``error`` is the relative one-sigma error of that price, ``reason`` where the factor comes from.
    """

    reference: Text
    factor: Positive
    error: Annotated[float, Field(ge=0)]
    reason: Text


class Sampled(Settings):
    """Where the price of an operator is founded: shapes and batches, as inclusive spans (low, high).

    ``basis`` says on what: ``measured`` in networks or kernels on the device itself, or ``transferred`` from
    the measurements that ``source`` names, with the relative one-sigma ``error`` seen where both exist.
    """

    basis: Literal["measured", "transferred"] = "measured"
    source: str = ""
    error: Annotated[float, Field(ge=0)] = 0.0
    batches: tuple[Count, Count] = (1, 1)
    h: tuple[Count, Count]
    cin: tuple[Count, Count]
    cout: tuple[Count, Count]
    kernels: tuple[Count, ...]
    strides: tuple[Count, ...]

    @model_validator(mode="after")
    def _founded(self) -> Self:
        if (self.basis == "transferred") != bool(self.source) or (self.error and not self.source):
            raise ValueError("a transferred range, and no other, names its source and its error")
        return self


Ranges = Annotated[tuple[Sampled, ...], Field(min_length=1)]


class HeldOut(Settings):
    """Error on measured networks that the shipped arrays were not fitted to; shares are fractions.

    ``interval_90`` is the share of covered ones (95 % of their ms priced exactly) whose measurement lies inside
    the stated 90 % interval; None if there are none.
    """

    models: Count
    uncovered_models: Annotated[int, Field(ge=0)]
    within_5: Share
    within_10: Share
    within_15: Share
    rmspe: Annotated[float, Field(ge=0)]
    spearman: Annotated[float, Field(ge=-1, le=1)]
    interval_90: Share | None = None


class LeftOut(Settings):
    """Error on one whole family by a fit that never saw it; ``bias`` is the median of predicted/measured - 1.

    ``interval_90`` is the share inside the 90 % interval of that fit's predictions; None if nobody checked.
    """

    family: Text
    models: Count
    within_5: Share
    within_10: Share
    bias: float
    exact: Share
    interval_90: Share | None = None


class Winners(Settings):
    """How far searched networks are underestimated: a search picks what its model prices too low.

    Of ``searches`` searches of ``space``, each against a disturbed model (``quadnas.calibrate.winners``), the
    price by the shipped model over the price by the disturbed one: ``quantiles`` are (level, ratio); ``bias``
    is the mean over that of networks that nobody selected, at least 1; ``surrogate_bias`` the same where,
    besides, every operator's stand-in is off by a draw of its stated error.
    """

    space: Text
    searches: Count
    bias: Annotated[float, Field(ge=1)]
    surrogate_bias: Annotated[float, Field(ge=1)]
    quantiles: Quantiles


class Rerun(Settings):
    """What was measured again on the device itself, after the fit (``quadnas calibrate``).

    ``repeated`` networks of ``space`` were measured a second time: the shares within 5 and 10 % of the first are
    the most that any prediction can reach. ``winners`` searched networks were measured, of which the share
    ``winners_within`` kept the limit that they were searched for with ``confidence``. ``disturbed`` is the
    share of all measurements that were thrown away because something else ran.
    """

    space: Text
    input_size: Count
    repeated: Count
    repeated_within_5: Share
    repeated_within_10: Share
    winners: Annotated[int, Field(ge=0)]
    winners_within: Share
    confidence: Share
    disturbed: Share


class Reading(Settings):
    """How the networks of a file were run on a device, where the file says something else.

    ``per_image``: the column is in ms per image of a batch. ``side`` is (input side in the file, input side of
    the runs): every map shrinks alike, rounded up. Networks of ``paced_ms`` a batch or less kept pace with what
    fed the device; their time says nothing of it, so they are left out. ``without`` names operators whose time
    the measured totals do not hold.
    """

    per_image: bool = False
    side: tuple[Count, Count] = (1, 1)
    paced_ms: Annotated[float, Field(ge=0)] = 0.0
    without: tuple[Text, ...] = ()


class DeviceFacts(Settings):
    """What is known of a device before anything is fitted; ``quadnas.calibrate.fit`` adds the rest.

    ``batches`` are the smallest and largest batch that may be asked for, ``batch`` the one that is meant
    without a word, ``measured_batch`` the one of the measured networks, which are in ``measured_column`` of
    their file and read as ``reading`` says. ``launch_us`` is the least that any
    kernel costs; ``peak_gmacs_per_second`` and ``peak_gbytes_per_second`` are physical peaks that no kernel
    may beat. ``extrapolation_error`` is the one-sigma error granted to a shape outside the measured ranges.
    ``fusion`` holds the pairs of operators that the runtime makes one kernel of, ``folded`` the operators
    that are free inside such a kernel. ``terms`` names, per operator, what its time depends on
    (``quadnas.latency.terms``); an operator without terms needs a rule in ``surrogates``.
    ``candidates`` are the terms that such a choice is made from (``quadnas.calibrate.selection``).
    ``winners_space`` is the search space that suits the device, in which the bias of winners is sought.
    """

    format: Literal["quadnas-device/1"]
    device: Text
    description: Text
    runtime: Text
    precision: Text
    bytes_per_element: Literal[1, 2, 4]
    batch: Count
    batches: tuple[Count, Count]
    measured_batch: Count
    source: Literal["measured", "fitted", "analytical"]
    provenance: Text
    licence: Text
    back_end: Text
    measured_column: Text
    reading: Reading = Reading()
    launch_us: Positive
    peak_gmacs_per_second: Positive
    peak_gbytes_per_second: Positive
    extrapolation_error: Share
    fusion: tuple[tuple[Text, Text], ...]
    folded: tuple[Text, ...]
    terms: dict[Text, tuple[Text, ...]]
    candidates: dict[Text, tuple[Text, ...]] = Field(default_factory=dict)
    surrogates: dict[Text, SurrogateRule]
    winners_space: Text = "quadranet"

    @model_validator(mode="after")
    def _usual_batch_allowed(self) -> Self:
        low, high = self.batches
        if not low <= self.batch <= high:
            raise ValueError(f"batch {self.batch} lies outside batches, {low} to {high}")
        return self


class DeviceCard(DeviceFacts):
    """The facts, the figures measured with exactly the shipped arrays, and the sha256 of every array file.

    ``error_quantiles`` are (level, measured/predicted): the share ``level`` of networks stayed below that ratio,
    each predicted by a fit to others. ``sampled`` holds the ranges per operator, the better founded first;
    outside of all of them a price is extrapolated. ``held_out`` and ``error_quantiles`` are None for a predictor
    that came from elsewhere and was never checked here.
    """

    held_out: HeldOut | None = None
    families_left_out: tuple[LeftOut, ...]
    winners: Winners | None = None
    error_quantiles: Quantiles | None = None
    rerun: Rerun | None = None
    sampled: dict[Text, Ranges]
    arrays: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+\.safetensors$")], str]

    @property
    def accuracy(self) -> str:
        """How well the predictions were checked, in words."""
        if self.held_out is None:
            return "not checked on measured networks here"
        return f"{self.held_out.within_10:.1%} of {self.held_out.models:,} held-out networks within 10 %"

    @model_validator(mode="after")
    def _checked_whole(self) -> Self:
        if (self.held_out is None) != (self.error_quantiles is None):
            raise ValueError("held_out and error_quantiles stand together or not at all")
        return self


def read_card(path: Path) -> DeviceCard:
    """Read a sealed card; raises DataError if a byte differs from what was sealed or a key is wrong."""
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the device card {path}: {error}; restore the folder") from None
    body, _, digest = text.rpartition(_SEAL)
    if text != _sealed(body):
        raise DataError(
            f"{path} does not match its checksum {digest.strip()[:80]!r}: it was damaged or edited. Restore "
            f"it, or, if you edited it on purpose, let its last line read: {_SEAL}{_digest(body)}"
        )
    try:
        return validated(parse_yaml(body, str(path)), DeviceCard, str(path))
    except ConfigError as error:
        raise DataError(str(error)) from None


def write_card(card: DeviceCard) -> bytes:
    """The sealed file that ``read_card`` reads back to an equal card."""
    return _sealed(write_yaml(card)).encode()


def _sealed(body: str) -> str:
    return f"{body}{_SEAL}{_digest(body)}\n"


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
