"""Published tables of single kernels with their times, read as networks of one kernel each."""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from quadnas.calibrate.measured import MAX_SIZE, MeasuredNetwork
from quadnas.errors import ConfigError, DataError
from quadnas.latency.kernels import Kernel

_TENSORRT = re.compile(r"\{(Regular|Depthwise),(\d+),(\d+),(\d+),\d+,(\d+),(\d+),(\d+),([01])\} (\S+)")
_FAILED = "-1"


def read_neusight(path: Path, op: str) -> list[MeasuredNetwork]:
    """The kernels of a table of NeuSight (``.csv.gz``), all of them our operator ``op``.

    An element-wise operator or LayerNorm over B rows of H values stands as H channels at B positions, a matrix
    product of B x M rows as ``fc``, times in ms. Source: the data set of NeuSight (arXiv 2407.13853). Raises
    ConfigError for a missing file, DataError for anything that is not such a table.
    """
    networks = []
    try:
        for number, row in enumerate(csv.DictReader(_lines(path)), start=2):
            networks.append(_network(path, number, _neusight_kernel(row, op), row["Latency"]))
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}, line {len(networks) + 2}: not a kernel of NeuSight ({error!r})") from None
    return _filled(path, networks)


def read_tensorrt(path: Path) -> list[MeasuredNetwork]:
    """The convolutions of a TensorRT table of TinyNAS (``.txt.gz``), without those that failed or fused a ReLU.

    A line is ``{type,batch,cin,h,w,cout,kernel,stride,fused} ms`` on a square map, type Regular (``conv``) or
    Depthwise (``dwconv``). Raises ConfigError for a missing file, DataError for anything else than such lines.
    """
    networks = []
    for number, line in enumerate(_lines(path), start=1):
        if not (match := _TENSORRT.fullmatch(line.rstrip("\n"))):
            raise DataError(f"{path}, line {number}: not a convolution with its time: {line[:80]!r}")
        kind, *sizes, fused, latency = match.groups()
        if fused == "1" or latency == _FAILED:
            continue
        batch, cin, h, cout, kernel, stride = map(int, sizes)
        op = "conv" if kind == "Regular" else "dwconv"
        try:
            networks.append(
                _network(path, number, Kernel(op, h, h, (cin,), cout, kernel, stride, batch), latency)
            )
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from None
    return _filled(path, networks)


def _neusight_kernel(row: Mapping[str, str], op: str) -> Kernel:
    if op == "conv":
        cin, cout = int(row["Input_Channel"]), int(row["Output_Channel"])
        size, side, stride = int(row["Input_Size"]), int(row["Kernel_Szie"]), int(row["Stride"])
        return Kernel(op, size, size, (cin,), cout, side, stride, int(row["B"]))
    if op == "fc":
        return Kernel(op, 1, 1, (int(row["K"]),), int(row["N"]), batch=int(row["B"]) * int(row["M"]))
    channels = int(row["H"])
    inputs = 2 if op in ("add", "mul") else 1
    return Kernel(op, 1, 1, (channels,) * inputs, channels, batch=int(row["B"]))


def _network(path: Path, number: int, kernel: Kernel, latency: str) -> MeasuredNetwork:
    latency_ms = float(latency)
    sizes = (kernel.batch, kernel.h, *kernel.inputs, kernel.cout, kernel.kernel, kernel.stride)
    if not all(0 < size <= MAX_SIZE for size in sizes) or not 0 < latency_ms < float("inf"):
        raise ValueError(
            f"sizes lie between 1 and {MAX_SIZE} and times above 0 ms, not {kernel}, {latency} ms"
        )
    return MeasuredNetwork(f"{path.name}:{number}", path.name, (kernel,), latency_ms)


def _lines(path: Path) -> Iterator[str]:
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            yield from file
    except FileNotFoundError:
        raise ConfigError(f"no file {path}; give the folder that holds the kernel tables") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from None


def _filled(path: Path, networks: list[MeasuredNetwork]) -> list[MeasuredNetwork]:
    if not networks:
        raise DataError(f"{path}: holds no kernel")
    return networks
