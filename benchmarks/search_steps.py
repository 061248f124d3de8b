"""Steps of our search beside NNI 3.0's ProxylessNAS strategy: equal space, batch, image size and threads.

Each of our steps (``benchmarks.supernet_steps``) and NNI's, which is an architecture and a weight step, run in
turn; seconds are medians, of the clock on the wall or (``--cpu-time``, for a machine with other work) of all
threads together, and peak memory is that of a process that makes steps of one kind, above what it held
before it built anything. How NNI's environment is made: ``benchmarks/nni_proxyless.py``.

Run: python -m benchmarks.search_steps --nni-python ENV/bin/python [--space proxyless] [--train-size 32 64]
"""

import argparse
import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks.nni_proxyless import NniProxyless
from benchmarks.supernet_steps import KINDS, MEMORY_STEPS, alone, steps
from benchmarks.timing import interleaved_medians, print_ratios

FLOOR = KINDS[0]
NNI = "NNI's ProxylessNAS, both steps"
WARMUP = 8
"""Rounds in which most candidates run once: oneDNN prepares every new shape."""


def compared(options: argparse.Namespace, size: int) -> dict[str, Any]:
    """Median seconds and peak megabytes of every kind of step on images of ``size``."""
    arguments = [
        "--space", options.space, "--train-size", str(size),
        "--batch", str(options.batch), "--threads", str(options.threads),
    ]  # fmt: skip
    variants = steps(options.space, size, options.batch)
    megabytes = {kind: alone(arguments, kind) for kind in variants}
    cpu_clocks, about = [time.process_time], {}
    with ExitStack() as stack:
        if options.nni_python:
            nni = stack.enter_context(NniProxyless(options.nni_python, arguments, WARMUP + options.rounds))
            about = nni.about
            require_same_torch(about["torch"])
            variants[NNI] = nni.step
            cpu_clocks.append(lambda: nni.cpu_seconds)
            megabytes[NNI] = nni_megabytes(options.nni_python, arguments)
        clock = (lambda: sum(read() for read in cpu_clocks)) if options.cpu_time else time.perf_counter
        seconds = interleaved_medians(variants, options.rounds, WARMUP, clock)
    settings = {key: value for key, value in vars(options).items() if key not in ("nni_python", "json")}
    return {
        **settings, "train_size": size, "torch": torch.__version__, "nni": about,
        "seconds": seconds, "peak_megabytes": megabytes,
    }  # fmt: skip


def nni_megabytes(python: str, arguments: list[str]) -> float:
    """Peak memory of NNI in a process that makes as many steps as each of ours."""
    with NniProxyless(python, arguments, MEMORY_STEPS) as nni:
        for _ in range(MEMORY_STEPS):
            nni.step()
        return nni.peak_megabytes


def require_same_torch(version: str) -> None:
    """End with a message if NNI's environment has another torch than this one."""
    if version != torch.__version__:
        raise SystemExit(
            f"NNI's environment has torch {version}, this one {torch.__version__}, and the ratios would compare "
            "these: install the same version there"
        )


def main() -> None:
    """Print a table per image size; with ``--json``, write everything measured there as well."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nni-python", help="Python of an environment with NNI; without it, our steps alone")
    parser.add_argument("--space", default="proxyless")
    parser.add_argument("--train-size", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = []
    for size in options.train_size:
        result = compared(options, size)
        found.append(result)
        print_ratios(
            f"{options.space}, {size}x{size}, batch {options.batch}, {options.threads} threads",
            result["seconds"],
            FLOOR,
        )
        for kind, megabytes in result["peak_megabytes"].items():
            print(f"  {kind:<44}{megabytes:>10.0f} MB peak in {MEMORY_STEPS} steps")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
