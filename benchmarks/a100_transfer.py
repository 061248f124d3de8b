"""How well kernel tables carry over to the A100: from a V100 by the peaks, and on rows that were not fitted.

Run: python -m benchmarks.a100_transfer FOLDER_OF_TABLES (with whole_networks.jsonl.gz)
"""

import argparse
from pathlib import Path

import numpy as np

from quadnas.calibrate.measured import read_measured
from quadnas.calibrate.transfer import NEUSIGHT, Transfer, carried_over, peak_ratio_error
from quadnas.latency.backends.additive import operator_ms
from quadnas.latency.card import DeviceFacts
from quadnas.latency.devices import load_device
from quadnas.latency.model import LatencyModel
from quadnas.latency.terms.general import Shapes


def figures(model: LatencyModel, transfer: Transfer) -> list[str]:
    """Median of predicted/converted - 1, its one-sigma size, and the number of held-out rows, by batch."""
    kernels = [row.kernels[0] for row in transfer.rows if row.held_out]
    times_ms = np.array([row.latency_ms for row in transfer.rows if row.held_out])
    relative = (
        operator_ms(model.card, transfer.op, Shapes.of(kernels), model.arrays[transfer.op]) / times_ms - 1
    )
    batches = np.array([kernel.batch for kernel in kernels])
    groups = {"all": np.ones(len(kernels), dtype=bool)}
    if transfer.op in ("conv", "dwconv"):
        groups |= {f"{batch}": batches == batch for batch in np.unique(batches)}
    sides = ", ".join(map(str, transfer.range.kernels))
    return [
        f"{transfer.op:<12}{sides:>6}{name:>8}{chosen.sum():>8}{np.median(relative[chosen]):>9.1%}"
        f"{np.percentile(np.abs(relative[chosen]), 68.27):>9.1%}"
        for name, chosen in groups.items()
    ]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print("A100 from V100 by the ratio of the peaks, fp32, one sigma:")
    for op in NEUSIGHT:
        print(f"{op:<12}{peak_ratio_error(folder, op):>8.1%}")
    model = load_device("a100", 512)
    facts = DeviceFacts(**{field: getattr(model.card, field) for field in DeviceFacts.model_fields})
    networks = read_measured(folder / "whole_networks.jsonl.gz", facts.measured_column, facts.measured_batch)
    among = np.array([not network.held_out for network in networks])
    print(f"\n{'operator':<12}{'kernel':>6}{'batch':>8}{'rows':>8}{'bias':>9}{'1 sigma':>9}  (held-out rows)")
    for transfer in carried_over(facts, networks, among, folder):
        if any(row.held_out for row in transfer.rows):
            print("\n".join(figures(model, transfer)))


if __name__ == "__main__":
    main()
