"""What was measured with other operators, precisions and GPUs, carried over to an A100 that computes in fp16.

Whole networks anchor the scale of every operator that they hold. Kernel tables add what belongs to the operator
and not to the GPU: each of their rows becomes a network of one kernel, at the time it would take on the A100
in a captured graph, and all are fitted together. The floor of a table (launch and events of its measurement)
gives way to the device's launch; the time above it is kept per byte where precisions differ, and follows the
peaks of the two GPUs where these differ.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quadnas.calibrate.design import Design
from quadnas.calibrate.kernel_tables import read_neusight, read_tensorrt
from quadnas.calibrate.measured import MeasuredNetwork
from quadnas.errors import ConfigError
from quadnas.latency.backends.additive import operator_ms, sampled_ranges
from quadnas.latency.card import DeviceFacts, Sampled
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import Arrays
from quadnas.latency.terms.general import Shapes, peak_work

FLOOR_PERCENTILE = 10
ABOVE_FLOOR = 2.0  # nearer to the floor of its table a row tells of the launch, not of the kernel
ONE_SIGMA = 68.27  # percentile
TABLE_WEIGHT = 0.01  # of all rows of one operator, beside 1 for all whole networks
LARGEST_MAP = 128  # of the whole networks: element-wise operators are alike on any map up to it

Values = NDArray[np.float64]
Rows = Sequence[MeasuredNetwork]


@dataclass(frozen=True, slots=True)
class Gpu:
    """Peaks of a data sheet: 1e9 multiply-accumulates (fp32; fp16 in tensor cores) and bytes per second."""

    gmacs_fp32: float
    gmacs_fp16: float
    gbytes: float


V100 = Gpu(7_850, 62_500, 900)
A100 = Gpu(9_750, 156_000, 1_555)

ELEMENTWISE = ("add", "mul", "relu", "gelu")
NEUSIGHT = {"add": "add", "mul": "mul", "gelu": "gelu", "layernorm": "ln", "conv": "conv", "fc": "linear"}
"""Our operators that NeuSight measured on both GPUs, and the names of its tables."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Rows of one operator as the A100 would run them; the error of ``range`` is that of the conversion."""

    op: str
    rows: Rows
    range: Sampled


@dataclass(frozen=True, slots=True)
class JointDesign(Design):
    """The system of the whole networks, in every solution of which the rows of ``tables`` take part.

    ``tables`` has the same columns, ``weights`` (rows,) their importance beside 1 for a network.
    """

    tables: Design
    weights: Values

    def solve(self, among: NDArray[np.bool_], importance: Values | None = None) -> dict[str, Values]:
        """Coefficients fitted to the networks ``among``, of some ``importance``, and to all table rows."""
        both = replace(
            self.tables,
            terms=np.concatenate([self.terms, self.tables.terms]),
            floor_ms=np.concatenate([self.floor_ms, self.tables.floor_ms]),
            measured_ms=np.concatenate([self.measured_ms, self.tables.measured_ms]),
        )
        importance = np.ones(len(self.measured_ms)) if importance is None else importance
        chosen = np.concatenate([among, np.ones(len(self.weights), dtype=bool)])
        return both.solve(chosen, np.concatenate([importance, self.weights]))


def joined(facts: DeviceFacts, networks: Rows, carried: Sequence[Transfer]) -> JointDesign:
    """The networks' system, with all carried rows that are not held out."""
    fitted = [[row for row in transfer.rows if not row.held_out] for transfer in carried]
    weights = [np.full(len(rows), TABLE_WEIGHT * len(networks) / max(len(rows), 1)) for rows in fitted]
    whole = Design.of(facts, [*networks, *(row for rows in fitted for row in rows)])
    networks_part, tables_part = slice(len(networks)), slice(len(networks), None)
    head = {field.name: getattr(_rows(whole, networks_part), field.name) for field in fields(whole)}
    return JointDesign(**head, tables=_rows(whole, tables_part), weights=np.concatenate(weights))


def _rows(design: Design, part: slice) -> Design:
    return replace(
        design,
        terms=design.terms[part],
        floor_ms=design.floor_ms[part],
        measured_ms=design.measured_ms[part],
    )


def with_tables(
    facts: DeviceFacts, networks: Rows, among: NDArray[np.bool_], folder: Path
) -> tuple[JointDesign, dict[str, tuple[Sampled, ...]]]:
    """The networks' system joined by the kernel tables in ``folder``, and the ranges that they found.

    Raises ConfigError, DataError.
    """
    carried = carried_over(facts, networks, among, folder)
    design = joined(facts, networks, carried)
    return design, stated_ranges(facts, design.solve(among), carried)


def stated_ranges(
    facts: DeviceFacts, arrays: Arrays, carried: Sequence[Transfer]
) -> dict[str, tuple[Sampled, ...]]:
    """The transferred ranges per operator.

    Their error is that of the conversion and that of the table rows that were not fitted, in quadrature.
    """
    ranges: dict[str, tuple[Sampled, ...]] = {}
    for transfer in carried:
        error = np.hypot(transfer.range.error, held_out_error(facts, arrays, transfer))
        stated = transfer.range.model_copy(update={"error": round(float(error), 3)})
        ranges[transfer.op] = (*ranges.get(transfer.op, ()), stated)
    return ranges


def carried_over(
    facts: DeviceFacts, networks: Rows, among: NDArray[np.bool_], folder: Path
) -> list[Transfer]:
    """What the kernel tables in ``folder`` add to whole networks of an A100, of which ``among`` may be fitted.

    Raises ConfigError if a table is missing or the device is no A100 in fp16, DataError for a damaged table.
    """
    if (facts.peak_gmacs_per_second, facts.bytes_per_element) != (A100.gmacs_fp16, 2):
        raise ConfigError(
            f"kernel tables carry over to an A100 in fp16 ({A100.gmacs_fp16:g} GMAC/s), not to {facts.device!r} "
            f"with {facts.peak_gmacs_per_second:g} GMAC/s; leave --kernel-tables away"
        )
    found = [*_elementwise(facts, folder), *_convolutions(facts, folder)]
    anchor = joined(facts, networks, found).solve(among)
    return [*found, *_depthwise(facts, anchor, folder)]


def held_out_error(facts: DeviceFacts, arrays: Arrays, transfer: Transfer) -> float:
    """Relative one-sigma error on the carried rows that were not fitted; 0 where there are none."""
    held = [row for row in transfer.rows if row.held_out]
    return _spread(_prices_ms(facts, arrays, held) / _times_ms(held)) if held else 0.0


def peak_ratio_error(folder: Path, op: str) -> float:
    """Relative one-sigma error of NeuSight's A100 times above the floor, taken from its V100 times in fp32.

    ``op`` is a key of ``NEUSIGHT``. Nothing is fitted: the times go by the ratio of the peaks.
    """
    floors = [
        _floor_ms(_neusight(folder, "add" if op in ("conv", "fc") else op, gpu)) for gpu in ("V100", "A100")
    ]
    rows, above_ms = _above(_neusight(folder, op, "V100"), floors[0])
    measured_ms = {row.kernels[0]: row.latency_ms - floors[1] for row in _neusight(folder, op, "A100")}
    predicted_ms = above_ms * _peak_ratio(op, rows, V100.gmacs_fp32, A100.gmacs_fp32, 4)
    ratios = [
        predicted / measured
        for row, predicted in zip(rows, predicted_ms, strict=True)
        if (measured := measured_ms.get(row.kernels[0], 0.0)) > floors[1]
    ]
    return _spread(np.array(ratios))


def _elementwise(facts: DeviceFacts, folder: Path) -> list[Transfer]:
    """Operators that memory binds, at the time of the same bytes in fp32.

    Autocast runs LayerNorm in fp32, and the next operator reads its 4 bytes and writes them as 2. The error is
    that of pricing the sum of two tensors by the bytes of relu.
    """
    tables = {op: _above(_neusight(folder, op, "A100")) for op in (*ELEMENTWISE, "layernorm")}
    per_byte = {op: above_ms / (4 * _moved(rows)) for op, (rows, above_ms) in tables.items()}
    ms_per_byte = float(np.median(per_byte["relu"]))
    error = _spread(ms_per_byte / per_byte["add"])
    found = []
    for op, (rows, above_ms) in tables.items():
        cast_bytes, doubled, source = 0, 2, "NeuSight's A100 kernels in fp32, at equal bytes"
        if op == "layernorm":
            cast_bytes, doubled = 4 + 2, 1
            source = "NeuSight's A100 kernels in fp32, as autocast runs them, and a cast back to fp16"
        kernels = [replace(row.kernels[0], batch=doubled * row.kernels[0].batch) for row in rows]
        cast_ms = ms_per_byte * cast_bytes * _moved(rows) / 2
        box = _any_map(facts, kernels, source, error)
        found.append(Transfer(op, _retimed(facts, rows, kernels, above_ms + cast_ms), box))
    return found


def _convolutions(facts: DeviceFacts, folder: Path) -> list[Transfer]:
    """Convolutions of 1x1 and 3x3 (larger ones of few channels follow rules of their own), depthwise of 3x3.

    The error is that of the same conversion where NeuSight measured both GPUs: of matrix products for 1x1, of
    convolutions for 3x3, of an operator bound by memory for depthwise.
    """
    source = "TensorRT's V100 kernels in fp16, by the ratio of the peaks"
    found = []
    for op, side, check in (("conv", 1, "fc"), ("conv", 3, "conv"), ("dwconv", 3, "add")):
        table = _tensorrt(folder, "fp16", op)
        rows, above_ms = _above([row for row in table if row.kernels[0].kernel == side], _floor_ms(table))
        above_ms = above_ms * _peak_ratio(op, rows, V100.gmacs_fp16, A100.gmacs_fp16, 2)
        kernels = [row.kernels[0] for row in rows]
        box = _box(facts, kernels, source, peak_ratio_error(folder, check))
        found.append(Transfer(op, _retimed(facts, rows, kernels, above_ms), box))
    return found


def _depthwise(facts: DeviceFacts, anchor: Arrays, folder: Path) -> list[Transfer]:
    """5x5 at other batches than the networks', and 7x7 by its ratio to 5x5 in the V100's tables.

    The step from 5x5 to 7x7 is checked by that from 3x3 to 5x5, which the networks hold, at stride 2: at stride
    1 TensorRT has a 3x3 kernel of its own kind.
    """
    batch_ratios, step_ratios, rows, anchored = [], [], [], []
    for precision in ("fp16", "fp32"):
        known, above_ms = _above(_tensorrt(folder, precision, "dwconv"))
        times_ms = {row.kernels[0]: ms for row, ms in zip(known, above_ms.tolist(), strict=True)}
        small = [k for k in times_ms if k.kernel == 5 and k.batch < 128 and replace(k, batch=128) in times_ms]
        anchored += small
        batch_ratios.append(
            _relative(facts, anchor, times_ms, small, lambda kernel: replace(kernel, batch=128))
        )
        steps = [k for k in times_ms if (k.kernel, k.stride) == (5, 2) and replace(k, kernel=3) in times_ms]
        step_ratios.append(
            _relative(facts, anchor, times_ms, steps, lambda kernel: replace(kernel, kernel=3))
        )
        for kernel in [k for k in times_ms if k.kernel == 7 and replace(k, kernel=5) in times_ms]:
            base = replace(kernel, kernel=5)
            base_ms = _above_launch_ms(facts, anchor, [base])[0]
            name = f"dwconv {precision}"
            above = base_ms * times_ms[kernel] / times_ms[base]
            rows.append(MeasuredNetwork(name, name, (kernel,), float(facts.launch_us * 1e-3 + above)))
    batch_error, step_error = _spread(np.concatenate(batch_ratios)), _spread(np.concatenate(step_ratios))
    linear = "the A100 at the networks' batch, linear in the batch as TensorRT's V100 kernels"
    ratio = "the A100's 5x5, by the ratio of 7x7 to 5x5 among TensorRT's V100 kernels"
    seventh = [row.kernels[0] for row in rows]
    return [
        Transfer("dwconv", [], _box(facts, anchored, linear, batch_error)),
        Transfer("dwconv", rows, _box(facts, seventh, ratio, float(np.hypot(batch_error, step_error)))),
    ]


def _relative(
    facts: DeviceFacts,
    anchor: Arrays,
    times_ms: dict[Kernel, float],
    kernels: list[Kernel],
    base: Callable[[Kernel], Kernel],
) -> Values:
    """Predicted over measured time of kernels, each relative to that of its ``base``."""
    bases = [base(kernel) for kernel in kernels]
    measured = np.array([times_ms[k] / times_ms[b] for k, b in zip(kernels, bases, strict=True)])
    predicted = _above_launch_ms(facts, anchor, kernels) / _above_launch_ms(facts, anchor, bases)
    return np.asarray(predicted / measured)


def _neusight(folder: Path, op: str, gpu: str) -> Rows:
    return read_neusight(folder / f"neusight_{NEUSIGHT.get(op, op)}_{gpu}.csv.gz", op)


def _tensorrt(folder: Path, precision: str, op: str) -> Rows:
    rows = read_tensorrt(folder / f"v100_tensorrt_conv_{precision}.txt.gz")
    return [row for row in rows if row.kernels[0].op == op]


def _times_ms(rows: Rows) -> Values:
    return np.array([row.latency_ms for row in rows])


def _floor_ms(rows: Rows) -> float:
    return float(np.percentile(_times_ms(rows), FLOOR_PERCENTILE))


def _above(rows: Rows, floor_ms: float | None = None) -> tuple[Rows, Values]:
    """The rows well above the floor of their table (or another), and their time above it."""
    floor_ms = _floor_ms(rows) if floor_ms is None else floor_ms
    kept = [row for row in rows if row.latency_ms > ABOVE_FLOOR * floor_ms]
    return kept, _times_ms(kept) - floor_ms


def _retimed(facts: DeviceFacts, rows: Rows, kernels: Sequence[Kernel], above_ms: Values) -> Rows:
    launch_ms = facts.launch_us * 1e-3
    return [
        MeasuredNetwork(row.id, row.family, (kernel,), launch_ms + ms)
        for row, kernel, ms in zip(rows, kernels, above_ms.tolist(), strict=True)
    ]


def _peak_ratio(op: str, rows: Rows, gmacs_from: float, gmacs_to: float, bytes_per_element: int) -> Values:
    """Time on the A100 over time on the V100, by whichever of the V100's peaks binds a kernel."""
    macs, elements = peak_work(op, Shapes.of([row.kernels[0] for row in rows]))
    arithmetic = macs / gmacs_from > elements * bytes_per_element / V100.gbytes
    return np.where(arithmetic, gmacs_from / gmacs_to, V100.gbytes / A100.gbytes)


def _prices_ms(facts: DeviceFacts, arrays: Arrays, rows: Rows) -> Values:
    kernels = [row.kernels[0] for row in rows]
    return operator_ms(facts, kernels[0].op, Shapes.of(kernels), arrays[kernels[0].op])


def _above_launch_ms(facts: DeviceFacts, arrays: Arrays, kernels: Sequence[Kernel]) -> Values:
    return operator_ms(facts, "dwconv", Shapes.of(kernels), arrays["dwconv"]) - facts.launch_us * 1e-3


def _spread(ratios: Values) -> float:
    """One-sigma error of predictions that stand to the truth in these ratios."""
    return float(np.percentile(np.abs(ratios - 1), ONE_SIGMA))


def _box(facts: DeviceFacts, kernels: Sequence[Kernel], source: str, error: float) -> Sampled:
    """The range of carried kernels; between their batches and the networks' the price is interpolated."""
    (op,) = {kernel.op for kernel in kernels}
    (measured,) = sampled_ranges(kernels)[op]
    batches = (measured.batches[0], max(measured.batches[1], facts.measured_batch))
    update = {"basis": "transferred", "source": source, "error": error, "batches": batches}
    return measured.model_copy(update=update)


def _any_map(facts: DeviceFacts, kernels: Sequence[Kernel], source: str, error: float) -> Sampled:
    """The range of an operator whose rows have no map, only positions (and, but for LayerNorm, no channels)."""
    box = _box(facts, kernels, source, error)
    update: dict[str, object] = {"h": (1, LARGEST_MAP), "batches": (1, facts.measured_batch)}
    if kernels[0].op != "layernorm":
        update |= {"cin": (1, box.cin[1]), "cout": (1, box.cout[1])}
    return box.model_copy(update=update)


def _moved(rows: Rows) -> Values:
    """Elements read and written by element-wise operators."""
    shapes = Shapes.of([row.kernels[0] for row in rows])
    return shapes.positions_in * (shapes.cin + shapes.cout)
