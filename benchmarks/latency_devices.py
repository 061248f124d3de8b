"""Every device that was fitted to published measurements, fitted again: is it what is shipped, how far off?

One row per device: share of held-out networks within 5, 10 and 15 %, of the covered ones inside the stated 90 %
interval, how much slower than predicted searched networks are (with stand-ins in them), and whether the refitted
folder equals the shipped one byte for byte. With --families, one row more for every family left out of a fit.

Run: python -m benchmarks.latency_devices --data DIR [--device NAME ...] [--families]
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from quadnas.calibrate.fit import fit_device
from quadnas.latency.card import DeviceCard, LeftOut
from quadnas.latency.devices import available_devices, find_device


@dataclass(frozen=True)
class Sources:
    """The measured files, below --data, that a device is fitted to."""

    networks: str
    ffn_blocks: str | None = None
    kernel_tables: str | None = None


PHONES = "nnmeter_bench/measured.jsonl.gz"
SERVERS = "a100/whole_networks.jsonl.gz"
SOURCES = {
    "cortexA76": Sources(PHONES, ffn_blocks="cortexA76/pixel4_tflite_block_table.json.gz"),
    "adreno630": Sources(PHONES),
    "adreno640": Sources(PHONES),
    "myriadvpu": Sources(PHONES),
    "a100": Sources(SERVERS, kernel_tables="a100"),
    "rtx3090": Sources(SERVERS),
    "tpuv2": Sources(SERVERS),
    "tpuv3": Sources(SERVERS),
    "vck190": Sources(SERVERS),
    "zcu102": Sources(SERVERS),
}


def refitted(device: str, data: Path, out: Path) -> DeviceCard:
    """The card of a fit to the published measurements, written with its arrays into the folder ``out``."""
    sources = SOURCES[device]
    blocks, tables = (data / name if name else None for name in (sources.ffn_blocks, sources.kernel_tables))
    return fit_device(device, [data / sources.networks], out, blocks, tables)


def differing(shipped: Path, refit: Path) -> list[str]:
    """The names of the files in which two device folders differ."""
    names = {path.name for folder in (shipped, refit) for path in folder.iterdir()}
    return sorted(
        name
        for name in names
        if not ((shipped / name).is_file() and (refit / name).is_file())
        or (shipped / name).read_bytes() != (refit / name).read_bytes()
    )


def row(card: DeviceCard, verdict: str) -> str:
    """One line of the table."""
    held, winners = card.held_out, card.winners
    assert held is not None  # a fitted card has it
    shares = "".join(
        share(value) for value in (held.within_5, held.within_10, held.within_15, held.interval_90)
    )
    bias = (
        "".join(f"{value - 1:>+9.1%}" for value in (winners.bias, winners.surrogate_bias)) if winners else ""
    )
    return f"{card.device:<26}{held.models:>6}{shares}{bias:>18}  {verdict}"


def family_row(left: LeftOut) -> str:
    """The line of a family that a fit never saw."""
    shares = "".join(share(value) for value in (left.within_5, left.within_10, None, left.interval_90))
    return f"  without {left.family:<16}{left.models:>6}{shares}  {left.exact:.1%} covered, bias {left.bias:+.1%}"


def share(value: float | None) -> str:
    """A share in its column."""
    return f"{'' if value is None else format(value, '.1%'):>9}"


def main() -> None:
    """Fit, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the measured networks")
    parser.add_argument("--device", nargs="+", default=available_devices(), help="only these [all shipped]")
    parser.add_argument("--families", action="store_true", help="also the families left out")
    arguments = parser.parse_args()
    columns = "".join(
        f"{name:>9}" for name in ("in 5 %", "in 10 %", "in 15 %", "interval", "winners", "+ st.in")
    )
    print(f"{'device':<26}{'nets':>6}{columns}  refit")
    for device in arguments.device:
        if device not in SOURCES:
            print(f"{device:<26}not fitted to published measurements: nothing to refit")
            continue
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as out:
            card = refitted(device, arguments.data, Path(out))
            files = differing(find_device(device)[0], Path(out))
        verdict = f"DIFFERS in {', '.join(files)}" if files else "identical"
        print(row(card, f"{verdict}, {time.monotonic() - start:.0f} s"), flush=True)
        for left in card.families_left_out if arguments.families else ():
            print(family_row(left), flush=True)


if __name__ == "__main__":
    main()
