"""Kernel tables carried over to an A100: closed forms come back, stated errors hold, damage is refused."""

import csv
import gzip
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from quadnas.calibrate.kernel_tables import read_neusight, read_tensorrt
from quadnas.calibrate.measured import MeasuredNetwork, read_measured
from quadnas.calibrate.transfer import (
    NEUSIGHT,
    Transfer,
    carried_over,
    joined,
    peak_ratio_error,
    stated_ranges,
    with_tables,
)
from quadnas.errors import ConfigError, DataError
from quadnas.latency.backends.additive import operator_ms
from quadnas.latency.card import DeviceFacts, Sampled
from quadnas.latency.devices import load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import Coverage, Price
from quadnas.latency.terms.general import Shapes
from quadnas.network import load_space
from quadnas.search.limits import price_space
from quadnas.search.problem import percentile, sample_latencies_ms

MEASURED = Path(os.environ.get("QUADNAS_MEASURED", Path(__file__).parents[2] / "../shared/data")) / "a100"
needs_data = pytest.mark.skipif(
    not MEASURED.is_dir(), reason="no kernel tables: set QUADNAS_MEASURED to the folder of measured data"
)
FLOOR_MS = 0.03  # launch and events in the made-up tables

# The made-up A100: ms per unit of the first term named, 0 for the others.
TRUTH = {
    "conv": {"macs_by_128": 2e-12, "depth": 5e-6, "output": 2e-9},
    "dwconv": {"macs": 6e-11, "macs_over_5": 5e-11, "output": 3e-9},
    "layernorm": {"elements": 4e-9, "positions": 1e-6},
    **{op: {"elements": 1e-9} for op in ("add", "mul", "relu", "gelu")},
}


@cache
def facts() -> DeviceFacts:
    card = load_device("a100").card
    return DeviceFacts(**{field: getattr(card, field) for field in DeviceFacts.model_fields})


def true_ms(kernel: Kernel) -> float:
    terms = [TRUTH[kernel.op].get(name, 0.0) for name in facts().terms[kernel.op]]
    return float(operator_ms(facts(), kernel.op, Shapes.of([kernel]), np.array(terms))[0])


def above_ms(kernel: Kernel) -> float:
    return true_ms(kernel) - facts().launch_us * 1e-3


def write_neusight(path: Path, columns: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["OPName", "Latency", *columns], *[["op", *row] for row in rows]])
    path.write_bytes(gzip.compress(text.getvalue().encode()))


def write_tensorrt(path: Path, times_ms: Mapping[Kernel, float]) -> None:
    lines = [
        f"{{{'Regular' if k.op == 'conv' else 'Depthwise'},{k.batch},{k.cin},{k.h},{k.w},{k.cout},{k.kernel},"
        f"{k.stride},0}} {ms!r}"
        for k, ms in times_ms.items()
    ]
    failed = ["{Regular,1,3,480,480,8,7,2,0} -1", "{Regular,1,3,480,480,8,7,2,1} 5.0"]
    path.write_bytes(gzip.compress("\n".join([*lines, *failed]).encode()))


def launches(above: Mapping[Kernel, float]) -> dict[Kernel, float]:
    """The times above the floor, with a quarter of kernels too small to rise from it."""
    tiny = {
        replace(kernel, h=number % 3 + 1, w=number % 3 + 1, batch=1): FLOOR_MS
        for number, kernel in enumerate(list(above)[::3])
    }
    return {**{kernel: FLOOR_MS + ms for kernel, ms in above.items()}, **tiny}


def made_up_tables(folder: Path, slower: float = 1.0) -> Path:
    """All tables of an A100 that keeps ``TRUTH``, and of a V100 ``slower`` than the ratio of the peaks."""
    rng = np.random.default_rng(0)
    sizes = [
        (int(b), int(h))
        for b, h in zip(rng.integers(4000, 9000, 60), rng.integers(600, 4000, 60), strict=True)
    ]
    small = [(4, 64 + n) for n in range(20)]
    for op in ("add", "mul", "relu", "gelu", "layernorm"):
        rows = []
        for batch, width in [*sizes, *small]:
            kernel = Kernel(op, 1, 1, (width,) * (2 if op in ("add", "mul") else 1), width, batch=batch)
            if op == "layernorm":  # in fp32 already; the cast of 4 + 2 bytes goes by the 8 of relu
                cast = above_ms(Kernel("relu", 1, 1, (width,), width, batch=2 * batch)) * 6 / 8
                ms = above_ms(kernel) - cast
            else:  # twice the bytes in fp32
                ms = above_ms(replace(kernel, batch=2 * batch))
            rows.append([ms * (batch > 4), batch, width])
        for gpu, ratio in (("A100", 1.0), ("V100", 1555 / 900)):
            write_neusight(
                folder / f"neusight_{NEUSIGHT.get(op, op)}_{gpu}.csv.gz",
                ["B", "H"],
                [[FLOOR_MS + ms * ratio, *row] for ms, *row in rows],
            )
    products = [[float(n), 64, 512 + n, 1024, 1024] for n in range(1, 30)]
    convolutions = [[float(n), 16, 256, 256, 3, 14 + n, 1] for n in range(1, 30)]
    for gpu, ratio in (("A100", 1.0), ("V100", slower * 9750 / 7850)):
        write_neusight(
            folder / f"neusight_linear_{gpu}.csv.gz",
            ["B", "M", "K", "N"],
            [[FLOOR_MS + ms * ratio, *row] for ms, *row in products],
        )
        write_neusight(
            folder / f"neusight_conv_{gpu}.csv.gz",
            ["B", "Input_Channel", "Output_Channel", "Kernel_Szie", "Input_Size", "Stride"],
            [[FLOOR_MS + ms * ratio, *row] for ms, *row in convolutions],
        )
    for precision in ("fp16", "fp32"):
        write_tensorrt(folder / f"v100_tensorrt_conv_{precision}.txt.gz", launches(v100_ms(slower)))
    return folder


def v100_ms(slower: float) -> dict[Kernel, float]:
    """Wide convolutions by arithmetic (125 against 312 TFLOPS), depthwise ones by memory (900, 1555 GB/s)."""
    times = {
        Kernel("conv", side, side, (width,), width, size, batch=batch): 0.0
        for side in (14, 28)
        for width in (512, 640, 768, 1024)
        for size in (1, 3)
        for batch in (1, 32, 64, 128)
    }
    times = {kernel: above_ms(kernel) * slower * 156_000 / 62_500 for kernel in times}
    for side in (28, 56, 112):
        for width in (96, 128, 256, 512):
            for stride in (1, 2):
                for batch in (32, 64, 128):
                    for size in (3, 5, 7):
                        kernel = Kernel("dwconv", side, side, (width,), width, size, stride, batch)
                        times[kernel] = above_ms(kernel) * 1555 / 900
    return times


def made_up_networks(count: int = 80) -> list[MeasuredNetwork]:
    rng = np.random.default_rng(1)
    networks = []
    for number in range(count):
        kernels: list[Kernel] = []
        for _ in range(12):
            side, width = int(rng.choice((8, 16, 32, 64))), int(rng.integers(16, 400))
            out, size, stride = int(rng.integers(16, 400)), int(rng.choice((3, 5))), int(rng.choice((1, 2)))
            kernels += [
                Kernel("conv", side, side, (width,), out, int(rng.choice((1, 3))), stride, 512),
                Kernel("dwconv", side, side, (width,), width, size, stride, 512),
                Kernel("relu", side, side, (width,), width, batch=512),
                Kernel("add", side, side, (out, out), out, batch=512),
            ]
        total_ms = sum(map(true_ms, kernels))
        networks.append(MeasuredNetwork(str(number), "made up", tuple(kernels), total_ms))
    return networks


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def fitted(tables: Path) -> tuple[Callable[[Kernel], float], dict[str, tuple[Sampled, ...]]]:
    networks = made_up_networks()
    among = np.array([not network.held_out for network in networks])
    design, ranges = with_tables(facts(), networks, among, tables)
    arrays = design.solve(among)
    return lambda k: float(operator_ms(facts(), k.op, Shapes.of([k]), arrays[k.op])[0]), ranges


@pytest.mark.parametrize("batch", [8, 64, 512])
@pytest.mark.parametrize(
    "kernel",
    [
        Kernel("gelu", 56, 56, (384,), 384),
        Kernel("mul", 56, 56, (96, 96), 96),
        Kernel("layernorm", 28, 28, (768,), 768),
        Kernel("conv", 28, 28, (768,), 768),
        Kernel("conv", 14, 14, (640,), 640, 3),
        Kernel("dwconv", 28, 28, (192,), 192, 3),
        Kernel("dwconv", 28, 28, (192,), 192, 5, 2),
        Kernel("dwconv", 56, 56, (128,), 128, 7),  # in no network: by its ratio to 5x5
    ],
)
def test_a_closed_form_comes_back(
    fitted: tuple[Callable[[Kernel], float], dict[str, tuple[Sampled, ...]]], kernel: Kernel, batch: int
) -> None:
    price_ms, _ = fitted
    assert price_ms(replace(kernel, batch=batch)) == pytest.approx(
        true_ms(replace(kernel, batch=batch)), rel=0.05
    )


def test_a_perfect_transfer_states_next_to_no_error(
    fitted: tuple[Callable[[Kernel], float], dict[str, tuple[Sampled, ...]]],
) -> None:
    _, ranges = fitted
    assert {op: len(found) for op, found in ranges.items()} == {
        "add": 1, "mul": 1, "relu": 1, "gelu": 1, "layernorm": 1, "conv": 2, "dwconv": 3,
    }  # fmt: skip
    for op, found in ranges.items():
        assert all(one.basis == "transferred" and one.error < 0.07 for one in found), (op, found)
    third, fifth, seventh = ranges["dwconv"]
    assert (third.kernels, fifth.kernels, seventh.kernels) == ((3,), (5,), (7,))
    assert third.batches == fifth.batches == seventh.batches == (32, 512)


def test_a_v100_off_the_ratio_of_the_peaks_is_stated(tmp_path: Path) -> None:
    made_up_tables(tmp_path, slower=1.3)
    assert peak_ratio_error(tmp_path, "fc") == pytest.approx(0.3, abs=0.01)
    networks = made_up_networks(30)
    carried = carried_over(facts(), networks, np.ones(30, dtype=bool), tmp_path)
    assert [t.range.error for t in carried if t.op == "conv"] == pytest.approx([0.3, 0.3], abs=0.01)


def test_other_devices_are_refused(tables: Path) -> None:
    other = facts().model_copy(update={"peak_gmacs_per_second": 35_500.0, "device": "rtx3090"})
    with pytest.raises(ConfigError, match=r"an A100 in fp16 .*'rtx3090' with 35500 GMAC/s"):
        with_tables(other, made_up_networks(4), np.ones(4, dtype=bool), tables)


def packed(text: str) -> bytes:
    return gzip.compress(text.encode())


HEADER = "OPName,Latency,B,H\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip",
        packed(HEADER + "add,0.5,12,34\n")[:-9],
        packed(HEADER),
        packed("OPName,B,H\nadd,12,34\n"),
        packed("OPName,Latency,B\nadd,0.5,12\n"),
        packed(HEADER + "add,0.5,12\n"),
        packed(HEADER + "add,nan,12,34\n"),
        packed(HEADER + "add,-0.5,12,34\n"),
        packed(HEADER + "add,inf,12,34\n"),
        packed(HEADER + "add,fast,12,34\n"),
        packed(HEADER + "add,0.5,0,34\n"),
        packed(HEADER + "add,0.5,12,3400000\n"),
        packed(HEADER + "add,0.5,__import__('os'),34\n"),
        packed(HEADER + 'add,0.5,12,"' + "3" * 200_000 + '"\n'),
        gzip.compress(b"\xff\xfe"),
    ],
)
def test_a_damaged_table_of_neusight_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "neusight_add_A100.csv.gz"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"neusight_add_A100\.csv\.gz"):
        read_neusight(path, "add")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        packed(""),
        packed("{Regular,1,3,480,480,8,7,2,0} -1\n"),
        packed("{Regular,1,3,480,480,8,7,2,0} 1.5\n{Regular,1,3,48"),
        packed("{Dense,1,3,480,480,8,7,2,0} 1.5\n"),
        packed("{Regular,1,3,480,480,8,7,2,0} nan\n"),
        packed("{Regular,1,3,480,480,8,7,2,0} -2\n"),
        packed("{Regular,1,3,480,480,0,7,2,0} 1.5\n"),
        packed("{Regular,1,3,480,480,8,7,2,0} 1.5 2\n"),
        packed("{Regular,1,3,480,480,8,7,2,0} 1.5\n")[:-9],
    ],
)
def test_a_damaged_table_of_tensorrt_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "v100.txt.gz"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"v100\.txt\.gz"):
        read_tensorrt(path)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file .*neusight_add_A100\.csv\.gz"):
        with_tables(facts(), made_up_networks(4), np.ones(4, dtype=bool), tmp_path)


def price(op: str, side: int, channels: int, size: int = 1, batch: int = 8) -> Price:
    inputs = (channels,) * (2 if op in ("add", "mul") else 1)
    kernel = Kernel(op, side, side, inputs, channels, size, batch=batch)
    return load_device("a100", batch).price([kernel])[0]


@pytest.mark.parametrize(
    ("found", "coverage", "reason"),
    [
        (lambda: price("dwconv", 32, 240, 5, 512), Coverage.EXACT, ""),
        (lambda: price("conv", 16, 480, 1, 512), Coverage.EXACT, ""),
        (lambda: price("dwconv", 28, 192, 5), Coverage.SURROGATE, "linear in the batch"),
        (lambda: price("dwconv", 28, 192, 7), Coverage.SURROGATE, "ratio of 7x7 to 5x5"),
        (lambda: price("conv", 28, 192), Coverage.SURROGATE, "TensorRT's V100 kernels in fp16"),
        (lambda: price("layernorm", 14, 384), Coverage.SURROGATE, "as autocast runs them"),
        (lambda: price("gelu", 56, 96), Coverage.SURROGATE, "at equal bytes"),
        (lambda: price("mul", 56, 96), Coverage.SURROGATE, "at equal bytes"),
        (lambda: price("dwconv", 28, 192, 9), Coverage.SURROGATE, "extrapolated: kernel 9"),
        (lambda: price("layernorm", 56, 64), Coverage.SURROGATE, "extrapolated: input channels 64"),
        (lambda: price("dwconv", 28, 192, 3, 1024), Coverage.SURROGATE, "extrapolated: batch 1024"),
    ],
)
def test_the_a100_says_what_founds_a_price(
    found: Callable[[], Price], coverage: Coverage, reason: str
) -> None:
    answer = found()
    assert answer.coverage is coverage and reason in answer.reason
    extrapolated = "extrapolated" in answer.reason
    assert ("extrapolated" in reason) is extrapolated
    assert (answer.surrogate_error >= load_device("a100").card.extrapolation_error) is extrapolated


def test_three_milliseconds_lie_within_the_a100_s_space() -> None:
    space = load_space("quadranet_s")
    model = load_device("a100")
    sampled = sample_latencies_ms(price_space(space, model, 1000, 224), 1000)
    assert model.batch == 8 and percentile(sampled, 0.1) < 3 < percentile(sampled, 0.9)


@cache
def whole_networks() -> list[MeasuredNetwork]:
    return read_measured(MEASURED / "whole_networks.jsonl.gz", "a100", 512)


@cache
def carried() -> list[Transfer]:
    among = np.array([not network.held_out for network in whole_networks()])
    return carried_over(facts(), whole_networks(), among, MEASURED)


def ranges_of(op: str) -> Iterator[Sampled]:
    return (one for one in load_device("a100").card.sampled[op] if one.basis == "transferred")


@needs_data
def test_the_shipped_arrays_come_from_the_tables() -> None:
    among = np.array([not network.held_out for network in whole_networks()])
    arrays = joined(facts(), whole_networks(), carried()).solve(among)
    shipped = load_device("a100")
    assert {op: values.tolist() for op, values in arrays.items()} == {
        op: values.tolist() for op, values in shipped.arrays.items()
    }
    ranges = stated_ranges(facts(), arrays, carried())
    assert {op: tuple(ranges_of(op)) for op in ranges} == ranges


@needs_data
@pytest.mark.parametrize("op", ["add", "mul", "relu", "gelu", "layernorm", "conv", "dwconv"])
def test_held_out_shapes_lie_within_the_stated_error(op: str) -> None:
    for transfer in carried():
        held = [row for row in transfer.rows if row.held_out]
        if transfer.op != op or not held:
            continue
        stated = next(one for one in ranges_of(op) if one.kernels == transfer.range.kernels)
        kernels = [row.kernels[0] for row in held]
        priced_ms = operator_ms(facts(), op, Shapes.of(kernels), load_device("a100").arrays[op])
        errors = np.abs(priced_ms / [row.latency_ms for row in held] - 1)
        assert len(held) > 40 and np.mean(errors <= stated.error) > 0.67
        assert stated.error < 0.36


@needs_data
@pytest.mark.parametrize(
    ("op", "error"),
    [("add", 0.06), ("mul", 0.06), ("gelu", 0.06), ("layernorm", 0.25), ("conv", 0.2), ("fc", 0.15)],
)
def test_the_ratio_of_the_peaks_predicts_the_a100_from_the_v100(op: str, error: float) -> None:
    assert 0 < peak_ratio_error(MEASURED, op) < error


@needs_data
def test_published_networks_come_out_in_order_and_proportion() -> None:
    """Published in TF32 or at unknown precision, so only ratios compare: per image, at batch 128."""
    from benchmarks.a100_published import CONVNEXTS, QUADRANETS, predicted, published

    found, known = predicted(load_device("a100", 128)), published(MEASURED / "whole_models.csv")
    for family, tolerance in (
        (("convnext_tiny", "convnext_small", "convnext_base"), 0.06),
        (QUADRANETS, 0.15),
    ):
        ratios = np.array([found[name] / known[name] for name in family])
        assert np.abs(ratios / np.exp(np.log(ratios).mean()) - 1).max() < tolerance
        assert sorted(family, key=found.__getitem__) == sorted(family, key=known.__getitem__)
    names = (*QUADRANETS, *CONVNEXTS)
    assert spearmanr([found[name] for name in names], [known[name] for name in names]).statistic > 0.85
    seven, five, three = (name for name in CONVNEXTS if "dw" in name)
    assert found[seven] < found[five] < found[three]
    steps = [
        (1 / table[seven] - 1 / table[five]) / (1 / table[five] - 1 / table[three])
        for table in (found, known)
    ]
    assert steps[0] > 1 and steps[1] > 1  # the step to 7x7 is the larger one, as published
