"""From the chosen candidates to everything that is said of them: model spec and result."""

from collections.abc import Sequence
from importlib.metadata import version

from quadnas.data.base import DataSet
from quadnas.latency.model import Coverage, Estimate
from quadnas.latency.table import CostTable
from quadnas.network import map_sizes, with_all_arguments
from quadnas.search.limits import price_space
from quadnas.search.problem import Problem
from quadnas.search.result import IntervalRecord, SearchResult, SlotRecord, SurrogateRecord
from quadnas.space.model_spec import InputSpec, ModelSpec


def model_spec(problem: Problem, data: DataSet, choices: Sequence[int], train_size: int) -> ModelSpec:
    """The self-contained description of an architecture of the problem's space."""
    settings, normalization = problem.settings, data.normalization
    limit = f"{settings.max_latency_ms:g}ms"
    return ModelSpec(
        name=f"{problem.space.name}-{problem.model.card.device}-{limit}",
        input=InputSpec(size=settings.input_size, mean=normalization.mean, std=normalization.std),
        classes=data.classes,
        layers=tuple(with_all_arguments(layer) for layer in problem.space.layers(choices, problem.classes)),
        provenance={
            "architecture": str(problem.space.architecture(choices)),
            "space": problem.space.name,
            "device": problem.model.card.device,
            "batch": problem.model.batch,
            "predicted_latency_ms": problem.estimate(choices).latency_ms,
            "limit_ms": settings.max_latency_ms,
            "strategy": settings.strategy,
            "seed": settings.seed,
            "data": settings.data,
            "train_size": train_size,
            "quadnas": version("quadnas"),
        },
    )


def swaps_that_fit(problem: Problem, choices: Sequence[int]) -> list[tuple[bool, ...]]:
    """For every slot whether the architecture is within all limits with each candidate in that slot alone."""
    priced = problem.bounds.priced

    def fits(slot: int, candidate: int) -> bool:
        swapped = [*choices[:slot], candidate, *choices[slot + 1 :]]
        return bool(priced[slot, candidate]) and problem.fits(swapped)

    counts = [len(slot.candidates) for slot in problem.space.slots]
    return [tuple(fits(slot, i) for i in range(count)) for slot, count in enumerate(counts)]


def slot_records(
    problem: Problem, choices: Sequence[int], train_size: int, fits: Sequence[tuple[bool, ...]]
) -> tuple[SlotRecord, ...]:
    """Every slot with its candidates' predicted latencies and its map sizes in training and deployment.

    ``fits``: as ``swaps_that_fit`` says for the ``choices``, or empty for every slot while nothing is chosen.
    """
    space, settings = problem.space, problem.settings
    table: CostTable = price_space(space, problem.model, problem.classes, settings.input_size)
    deployed = map_sizes(space, settings.input_size)
    trained = map_sizes(space, train_size)
    return tuple(
        SlotRecord(
            stage=slot.stage,
            labels=slot.labels,
            latency_ms=tuple(ms if ms < float("inf") else None for ms in row),
            chosen=choice,
            fits=fitting,
            train_map=train_map,
            deployed_map=deployed_map,
        )
        for slot, row, choice, fitting, train_map, deployed_map in zip(
            space.slots, table.rows, choices, fits, trained, deployed, strict=True
        )
    )


def surrogate_records(estimate: Estimate) -> tuple[SurrogateRecord, ...]:
    """The surrogate prices of a network, one record for each operator, error and reason; dearest first."""
    totals_ms: dict[tuple[str, float, str], float] = {}
    for kernel, price in zip(estimate.kernels, estimate.prices, strict=True):
        if price.coverage is Coverage.SURROGATE and price.latency_ms is not None:
            key = (kernel.op, price.surrogate_error, price.reason)
            totals_ms[key] = totals_ms.get(key, 0.0) + price.latency_ms
    records = (
        SurrogateRecord(op=op, latency_ms=ms, error=error, reason=reason)
        for (op, error, reason), ms in totals_ms.items()
    )
    return tuple(sorted(records, key=lambda record: -record.latency_ms))


def interval_record(
    estimate: Estimate, confidence: float = 0.9, *, winner: bool = False
) -> IntervalRecord | None:
    """The interval of a prediction; None without a total or on a device that was never checked."""
    if estimate.latency_ms is None or estimate.card.error_quantiles is None:
        return None
    low_ms, high_ms = estimate.interval_ms(confidence, winner=winner)
    return IntervalRecord(confidence=confidence, low=low_ms, high=high_ms, calibrated=estimate.calibrated)


def search_result(
    problem: Problem,
    data: DataSet,
    choices: Sequence[int],
    train_size: int,
    accuracies: tuple[float, float],
    parameters: int,
    files: dict[str, str],
) -> SearchResult:
    """The record of a finished search; ``accuracies`` are (inherited, final), fractions of the test split."""
    settings = problem.settings
    estimate = problem.estimate(choices)
    assert estimate.latency_ms is not None  # a candidate without a price cannot be chosen
    return SearchResult(
        architecture=str(problem.space.architecture(choices)),
        latency_ms=estimate.latency_ms,
        bound_ms=problem.bound_ms(choices),
        interval_ms=interval_record(estimate, winner=True),
        scale=str(estimate.scale),
        limit_ms=settings.max_latency_ms,
        feasible_ms=problem.bounds.range,
        shares=estimate.shares,
        surrogates=surrogate_records(estimate),
        slots=slot_records(problem, choices, train_size, swaps_that_fit(problem, choices)),
        parameters=parameters,
        train_size=train_size,
        inherited_accuracy=accuracies[0],
        accuracy=accuracies[1],
        retrained=settings.schedule.retrain_epochs > 0,
        demonstration=data.demonstration,
        data_note=data.note,
        files=files,
    )
