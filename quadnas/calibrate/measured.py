"""Measured networks: whole-network latencies with the kernels that were run."""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quadnas.calibrate.repair import repaired
from quadnas.errors import ConfigError, DataError
from quadnas.latency.card import Reading
from quadnas.latency.kernels import Kernel
from quadnas.latency.names import words
from quadnas.registry import did_you_mean

MAX_SIZE = 1_000_000  # no side or width of a real kernel is larger
HELD_OUT_OF = 5
FOLDS = 5
AS_WRITTEN = Reading()


@dataclass(frozen=True, slots=True)
class MeasuredNetwork:
    """One network with its latency in ms per batch, as measured end to end.

    ``written`` are the kernels as the file has them, where the runs were of another size.
    """

    id: str
    family: str
    kernels: tuple[Kernel, ...]
    latency_ms: float
    written: tuple[Kernel, ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether the network belongs to the held-out fifth: its number is 0 modulo 5."""
        return self.number % HELD_OUT_OF == 0

    @property
    def fold(self) -> int:
        """The part of the fitted networks (0 to 4) that it is predicted with by a fit to the other four."""
        return self.number // HELD_OUT_OF % FOLDS

    @property
    def number(self) -> int:
        """Divides networks at random but for ever, so that equal networks stay together, on all devices alike.

        The sha256, as a number, of one line ``op h w inputs cout kernel stride`` per kernel (inputs joined by
        "+"), the lines sorted and joined by newlines.
        """
        text = "\n".join(sorted(_line(kernel) for kernel in self.written or self.kernels))
        return int.from_bytes(hashlib.sha256(text.encode()).digest())


def read_measured(
    path: Path, column: str, batch: int, reading: Reading = AS_WRITTEN
) -> list[MeasuredNetwork]:
    """The networks of a JSON-lines file (optionally gzipped) with a latency in ``column``, run at ``batch``.

    A line holds ``id``, ``family``, ``latency_ms`` {column: ms} and ``kernels``, rows of
    [op, h, cin, cout, kernel, stride] on square maps, with a list for cin where there are several inputs; rows
    of nn-Meter's data set that contradict each other are set right (``quadnas.calibrate.repair``).
    Raises ConfigError if the file is missing or no line has the column, DataError for a bad line.
    """
    known: dict[Any, Kernel] = {}
    columns: set[str] = set()
    networks = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            network = json.loads(line)
            latencies = network["latency_ms"]
            columns.update(latencies)
            if latencies.get(column) is None:
                continue
            family = str(network["family"])
            written = repaired(family, [_kernel(row, batch, known) for row in network["kernels"]])
            latency_ms = _positive(latencies[column]) * (batch if reading.per_image else 1)
            if latency_ms > reading.paced_ms:
                timed = tuple(kernel for kernel in written if words(kernel.op)[0] not in reading.without)
                kernels = _as_run(timed, *reading.side)
                networks.append(MeasuredNetwork(str(network["id"]), family, kernels, latency_ms, written))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not a measured network ({_reason(error)})") from None
    if not networks:
        if column in columns:
            raise ConfigError(f"{path}: no network has a latency {column!r} above {reading.paced_ms:g} ms")
        raise ConfigError(f"{path}: no network has a latency {column!r}; {did_you_mean(column, columns)}")
    return networks


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        raise ConfigError(f"no file {path}; give the path of a .jsonl or .jsonl.gz file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from None


def _kernel(row: Any, batch: int, known: dict[Any, Kernel]) -> Kernel:
    """Equal rows share one kernel: a file has a million rows and a tenth as many different ones."""
    op, h, cin, cout, side, stride = row
    key = (op, h, tuple(cin) if isinstance(cin, list) else cin, cout, side, stride)
    if (kernel := known.get(key)) is None:
        inputs = key[2] if isinstance(key[2], tuple) else (cin,)
        sizes = (h, *inputs, cout, side, stride)
        if not isinstance(op, str) or not inputs:
            raise ValueError(f"a kernel row starts with its operator and has inputs, not {row}")
        if not all(type(size) is int and 0 < size <= MAX_SIZE for size in sizes):
            raise ValueError(f"sizes are whole numbers from 1 to {MAX_SIZE}, not {row}")
        kernel = known[key] = Kernel(op, h, h, inputs, cout, side, stride, batch)
    return kernel


def _as_run(written: tuple[Kernel, ...], in_file: int, in_runs: int) -> tuple[Kernel, ...]:
    """The kernels at the size of the runs; a map of a single pixel stays."""
    if in_file == in_runs:
        return written
    sizes = {kernel.h: -(-kernel.h * in_runs // in_file) for kernel in written}
    return tuple(replace(kernel, h=sizes[kernel.h], w=sizes[kernel.h]) for kernel in written)


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"a latency is a positive number of ms, not {value!r}")
    return float(value)


def _line(kernel: Kernel) -> str:
    inputs = "+".join(map(str, kernel.inputs))
    return f"{kernel.op} {kernel.h} {kernel.w} {inputs} {kernel.cout} {kernel.kernel} {kernel.stride}"


def _reason(error: Exception) -> str:
    return f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
