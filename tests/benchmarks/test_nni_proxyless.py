"""NNI's search as a process; the real one where ``QUADNAS_NNI_PYTHON`` names the Python that has NNI."""

import os
from pathlib import Path

import pytest
import torch

from benchmarks.memory import PeakMemory
from benchmarks.nni_proxyless import NniProxyless
from quadnas.network import load_space
from quadnas.supernet.supernet import Supernet

ARGUMENTS = ("--space", "proxyless", "--train-size", "32", "--batch", "4", "--threads", "1")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak memory")
def test_peak_memory_is_of_what_came_and_went_since() -> None:
    torch.ones(100 * 2**18)
    memory = PeakMemory()
    torch.ones(50 * 2**18)
    assert memory.megabytes == pytest.approx(50, abs=5)


def test_a_process_that_ends_is_told() -> None:
    with pytest.raises(SystemExit, match="code 1"):
        NniProxyless("false", ARGUMENTS, 1)


@pytest.mark.skipif("QUADNAS_NNI_PYTHON" not in os.environ, reason="needs an environment with NNI 3.0")
def test_nni_searches_our_space() -> None:
    weights = sum(p.numel() for p in Supernet(load_space("proxyless"), 10).parameters())
    with NniProxyless(os.environ["QUADNAS_NNI_PYTHON"], ARGUMENTS, 2) as nni:
        assert nni.about["nni"] == "3.0"
        assert nni.about["parameters"] == weights
        nni.step()
        first = nni.cpu_seconds
        nni.step()
        assert nni.cpu_seconds > first > 0
        last_convolution_megabytes = 4 * 320 * 1280 / 2**20
        assert nni.peak_megabytes > 3 * last_convolution_megabytes  # its gradient and two moments
