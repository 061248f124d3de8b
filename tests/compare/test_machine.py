"""The words for the machine, wherever it is."""

import os

import pytest
import torch

from quadnas.compare.machine import machine_text


def test_a_system_that_tells_no_affinity_has_cores_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert f", {os.cpu_count()} cores; torch {torch.__version__}" in machine_text()
