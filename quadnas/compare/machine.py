"""The machine that an experiment ran on, in words."""

import os
import platform
from pathlib import Path

import torch


def machine_text() -> str:
    """The GPU or the CPU with its cores, and the version of torch."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        known = hasattr(os, "sched_getaffinity")  # not on macOS
        cores = len(os.sched_getaffinity(0)) if known else os.cpu_count()
        device = f"{_cpu_name()}, {cores} cores"
    return f"{device}; torch {torch.__version__}"


def _cpu_name() -> str:
    """As Linux tells it; elsewhere the name of the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
