"""What the smaller commands answer: a value for JSON, and the same as a table for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quadnas.calibrate.evaluate import evaluate
from quadnas.calibrate.measured import read_measured
from quadnas.errors import CoverageError
from quadnas.latency.devices import available_devices, load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.measurements import Measured, load_corrected
from quadnas.latency.model import LatencyModel, estimate
from quadnas.network import kernels_of, load_space
from quadnas.report.answer import Answer
from quadnas.report.facts import interval_text
from quadnas.report.residual import compare_measured
from quadnas.search.derivation import interval_record
from quadnas.search.limits import price_space
from quadnas.search.problem import percentile, sample_latencies_ms
from quadnas.space.model_spec import ModelSpec
from quadnas.space.search_space import SearchSpace

SAMPLES = 1000
CLASSES = 1000
"""ImageNet's; the head's share of the latency is small."""


def describe_space(name: str, devices: list[str] | None, batch: int | None, input_size: int) -> Answer:
    """Size of a space, and minimum, percentiles of 1,000 random architectures, and maximum in ms per device.

    Of all devices, those that cannot price the space are named with the reason. Raises CoverageError if one was
    asked for.
    """
    space = load_space(name)
    rows, notes = {}, {}
    for device in devices or available_devices():
        model = load_corrected(device, batch)
        try:
            rows[device] = _latency_range(space, model, input_size)
        except CoverageError as error:
            if devices:
                raise
            notes[device] = str(error)
        if note := str(model.scale):
            notes[device] = note
    answer = {
        "name": space.name,
        "slots": len(space.slots),
        "architectures": float(space.size),
        "input_size": input_size,
        "latency_ms": rows,
    }
    lines = [
        f"{space.name}: {space.description}",
        f"{len(space.slots)} slots, {float(space.size):.2g} architectures; predicted ms at "
        f"{input_size}x{input_size}, percentiles of {SAMPLES:,} random architectures",
        f"{'device':<16}{'batch':>6}{'min':>10}{'p10':>10}{'p50':>10}{'p90':>10}{'max':>10}",
    ]
    for device, row in rows.items():
        figures = "".join(f"{row[key]:>10.2f}" for key in ("min", "p10", "p50", "p90", "max"))
        lines.append(f"{device:<16}{row['batch']:>6}{figures}")
    lines += [f"{device}: {note}" for device, note in notes.items()]
    return answer, "\n".join(lines)


def _latency_range(space: SearchSpace, model: LatencyModel, input_size: int) -> dict[str, float]:
    table = price_space(space, model, CLASSES, input_size)
    sampled = sample_latencies_ms(table, SAMPLES)
    low, high = table.range
    quantiles = {f"p{round(100 * q)}": percentile(sampled, q) for q in (0.1, 0.5, 0.9)}
    return {"batch": model.batch, "min": low, **quantiles, "max": high}


def evaluate_device(device: str, data: Path, column: str | None) -> Answer:
    """A device's predictions against measured networks, at the batch that was measured."""
    model = load_device(device, load_device(device).card.measured_batch)
    card = model.card
    networks = read_measured(data, column or card.measured_column, model.batch, card.reading)
    unseen = [network for network in networks if network.held_out and card.held_out is not None]
    answer = {**evaluate(model, networks), "held_out": evaluate(model, unseen) if unseen else None}
    lines = [f"{device}: {_error_text(answer)}"]
    if unseen:
        lines.append(f"held out of the fit: {_error_text(answer['held_out'])}")
    if paced_ms := card.reading.paced_ms:
        lines.append(f"networks of {paced_ms:g} ms or less kept pace with their feed and are left out")
    left_out = {found.family: found for found in card.families_left_out}
    for family, row in answer["families"].items():
        line = f"  {family:<20}{row['models']:>7} networks, {row['within_10']:.1%} within 10 %"
        if found := left_out.get(family):
            line += (
                f"; {found.within_10:.1%} by a fit without them, which covers {found.exact:.0%} of their time"
            )
        lines.append(line)
    return answer, "\n".join(lines)


def _error_text(figures: Mapping[str, Any]) -> str:
    shares = " ".join(f"{figures[f'within_{tolerance}']:.1%}" for tolerance in (5, 10, 15))
    text = (
        f"{figures['models']} networks, {figures['uncovered_models']} with an uncovered kernel (a miss); "
        f"within 5/10/15 %: {shares}; root mean square error {_known(figures['rmspe'])}, "
        f"rank correlation {_known(figures['spearman'])}"
    )
    if figures["interval_90"] is not None:
        text += f"; {figures['interval_90']:.1%} of the covered ones inside the stated 90 % interval"
    return text


def _known(figure: float | None) -> str:
    return "unknown" if figure is None else f"{figure:.4f}"


def predict_latency(
    spec: ModelSpec,
    device: str,
    batch: int | None,
    input_size: int | None,
    measured: Measured | None = None,
) -> Answer:
    """The predicted latency of a model, kernel by kernel, beside the ``measured`` one, which is recorded."""
    model = load_corrected(device, batch)
    size = spec.input.size if input_size is None else input_size
    return describe_kernels(model, kernels_of(spec.layers, size, model), f"{size}x{size}", measured)


def describe_kernels(
    model: LatencyModel, network: Sequence[Kernel], size: str, measured: Measured | None = None
) -> Answer:
    """The price of every kernel of a network that was made for images of a ``size`` such as 224x224.

    A ``measured`` latency is recorded; raises as ``quadnas.latency.measurements.record`` does.
    """
    found = estimate(model, network)
    kernels = [
        {
            "op": kernel.op, "h": kernel.h, "w": kernel.w, "inputs": list(kernel.inputs), "cout": kernel.cout,
            "kernel": kernel.kernel, "stride": kernel.stride, "batch": kernel.batch,
            "ms": price.latency_ms, "coverage": str(price.coverage), "reason": price.reason,
        }
        for kernel, price in zip(found.kernels, found.prices, strict=True)
    ]  # fmt: skip
    interval = interval_record(found)
    answer = {
        "latency_ms": found.latency_ms,
        "interval_ms": interval and interval.model_dump(),
        "scale": {"factor": model.scale.factor, "models": model.scale.models},
        "kernels": kernels,
        "coverage": found.shares,
    }
    lines = [f"{'kernel':<14}{'map':>9}{'in':>7}{'out':>7}{'k':>4}{'s':>3}{'ms':>10}  coverage"]
    for kernel, price in zip(found.kernels, found.prices, strict=True):
        cost = "-" if price.latency_ms is None else f"{price.latency_ms:.4f}"
        lines.append(
            f"{kernel.op:<14}{f'{kernel.h}x{kernel.w}':>9}{kernel.inputs[0]:>7}{kernel.cout:>7}"
            f"{kernel.kernel:>4}{kernel.stride:>3}{cost:>10}  {price.coverage}"
        )
    total = "no total" if found.latency_ms is None else f"{found.latency_ms:.4g} ms predicted"
    shares = ", ".join(f"{share:.1%} {name}" for name, share in found.shares.items())
    card = model.card
    lines.append(
        f"{total} on {card.device} ({card.runtime}, {card.precision}, batch {model.batch}, {size}); "
        f"{shares}; {card.accuracy}"
    )
    if interval:
        lines.append(interval_text(interval))
    if note := str(model.scale):
        lines.append(note)
    if measured and found.latency_ms is not None:
        answer["measured"], text = compare_measured(found, model.batch, measured)
        lines.append(text)
    return answer, "\n".join(lines)
