"""From the chosen candidates to everything that is said of them: model spec and result."""

from collections.abc import Sequence
from importlib.metadata import version

from quadnas.data.base import DataSet
from quadnas.latency.model import Coverage, Estimate
from quadnas.latency.table import CostTable
from quadnas.network import map_sizes, with_all_arguments
from quadnas.search.limits import price_space
from quadnas.search.problem import Problem
from quadnas.search.result import (
    IntervalRecord,
    LatencyRecord,
    SearchResult,
    SizeRecord,
    SlotRecord,
    SurrogateRecord,
)
from quadnas.space.model_spec import InputSpec, ModelSpec


def model_spec(problem: Problem, data: DataSet, choices: Sequence[int], train_size: int) -> ModelSpec:
    """The self-contained description of an architecture of the problem's space."""
    settings, normalization = problem.settings, data.normalization
    names = [model.card.device for model in problem.models]
    records = dict(zip(names, latency_records(problem, choices), strict=True))
    device = names[0]
    return ModelSpec(
        name=f"{problem.space.name}-{device}-{settings.max_latency_ms:g}ms",
        input=InputSpec(size=settings.input_size, mean=normalization.mean, std=normalization.std),
        classes=data.classes,
        layers=tuple(with_all_arguments(layer) for layer in problem.space.layers(choices, problem.classes)),
        provenance={
            "architecture": str(problem.space.architecture(choices)),
            "space": problem.space.name,
            "device": device,
            "batch": problem.model.batch,
            "predicted_latency_ms": records[device].latency_ms,
            "limit_ms": settings.max_latency_ms,
            **{f"predicted_latency_ms on {name}": records[name].latency_ms for name in names[1:]},
            **{f"limit_ms on {name}": records[name].limit_ms for name in names[1:]},
            **{f"limit on {name}": maximum for name, maximum in settings.size_limits.items() if maximum},
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


def latency_records(problem: Problem, choices: Sequence[int]) -> list[LatencyRecord]:
    """What is said of an architecture on every device of the problem, in order."""
    records = []
    for asked, model, limit in zip(
        problem.settings.latency_limits, problem.models, problem.limits, strict=False
    ):
        estimate = problem.estimate(choices, model)
        assert estimate.latency_ms is not None  # a candidate without a price cannot be chosen
        records.append(
            LatencyRecord(
                latency_ms=estimate.latency_ms,
                bound_ms=limit.whole(choices),
                interval_ms=interval_record(estimate, winner=True),
                scale=str(estimate.scale),
                limit_ms=asked.max_latency_ms,
                feasible_ms=limit.costs.range,
                shares=estimate.shares,
                surrogates=surrogate_records(estimate),
            )
        )
    return records


def size_records(problem: Problem, choices: Sequence[int]) -> dict[str, SizeRecord]:
    """The limited sizes of an architecture."""
    return {
        limit.name: SizeRecord(
            unit=limit.unit,
            value=int(limit.whole(choices)),
            limit=int(limit.value),
            feasible=(int(limit.costs.range[0]), int(limit.costs.range[1])),
        )
        for limit in problem.limits[len(problem.models) :]
    }


def search_result(
    problem: Problem,
    data: DataSet,
    choices: Sequence[int],
    train_size: int,
    accuracies: tuple[float, float],
    parameters: int,
    files: dict[str, str],
) -> SearchResult:
    """The record of a finished search; ``accuracies`` are (first, final), fractions of the test split."""
    settings = problem.settings
    first, *others = latency_records(problem, choices)
    return SearchResult(
        architecture=str(problem.space.architecture(choices)),
        device=problem.model.card.device,
        **dict(first),
        also={model.card.device: record for model, record in zip(problem.models[1:], others, strict=True)},
        sizes=size_records(problem, choices),
        slots=slot_records(problem, choices, train_size, swaps_that_fit(problem, choices)),
        parameters=parameters,
        train_size=train_size,
        test_images=len(data.test),
        initial_accuracy=accuracies[0],
        accuracy=accuracies[1],
        retrained=settings.schedule.retrain_epochs > 0,
        demonstration=data.demonstration,
        data_note=data.note,
        files=files,
    )
