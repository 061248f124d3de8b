"""A latency back-end is one file: a device whose card names it works without another line."""

import hashlib
import subprocess
import sys
from pathlib import Path

import safetensors.numpy

from quadnas.latency.card import write_card
from quadnas.testing.toy_device import ARRAYS, card

BACK_END = '''
"""Every kernel costs what one array says."""

from collections.abc import Sequence

from quadnas.latency.kernels import Kernel
from quadnas.latency.model import BACK_ENDS, Coverage, LatencyModel, Price


@BACK_ENDS.register("flat")
class Flat(LatencyModel):
    def price(self, kernels: Sequence[Kernel]) -> list[Price]:
        return [Price(float(self.arrays["conv"][1]), Coverage.EXACT)] * len(kernels)
'''

USE = """
import sys
import quadnas.latency.backends as back_ends
back_ends.__path__.append(sys.argv[1])
from quadnas.latency.devices import load_device
from quadnas.latency.kernels import Kernel
print(load_device(sys.argv[2]).price([Kernel("anything", 1, 1, (1,), 1)])[0].latency_ms)
"""


def test_a_back_end_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "flat.py").write_text(BACK_END)
    device = tmp_path / "device"
    device.mkdir()
    data = safetensors.numpy.save(ARRAYS)
    (device / "toy.safetensors").write_bytes(data)
    toy = card(back_end="flat", arrays={"toy.safetensors": hashlib.sha256(data).hexdigest()})
    (device / "card.yaml").write_bytes(write_card(toy))
    found = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path / "more"), str(device)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(found.stdout) == ARRAYS["conv"][1] == 0.5
