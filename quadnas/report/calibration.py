"""What a calibration of this machine found, for JSON and for the terminal."""

from pathlib import Path

from quadnas.latency.card import DeviceCard
from quadnas.report.answer import Answer


def describe_calibration(card: DeviceCard, folder: Path) -> Answer:
    """The answer of ``quadnas calibrate``."""
    held_out, rerun = card.held_out, card.rerun
    assert held_out is not None
    assert rerun is not None
    answer = {
        "device": card.device,
        "folder": str(folder),
        "runtime": card.runtime,
        "held_out": held_out.model_dump(mode="json"),
        "rerun": rerun.model_dump(mode="json"),
    }
    rows = [
        ("device", f"{card.device}: {card.description}, {card.runtime}, {card.precision}"),
        (
            "held out",
            f"{card.accuracy}, {held_out.within_5:.1%} within 5 %, Spearman {held_out.spearman:.4f}",
        ),
        (
            "ceiling",
            f"{rerun.repeated_within_10:.1%} of {rerun.repeated} of them measured again within 10 % of the first "
            f"measurement, {rerun.repeated_within_5:.1%} within 5 %",
        ),
        (
            "winners",
            f"{rerun.winners_within:.1%} of {rerun.winners} searched networks kept their limit at --confidence "
            f"{rerun.confidence:g}",
        ),
        ("disturbed", f"{rerun.disturbed:.1%} of all measurements thrown away, because something else ran"),
        ("use it", f"--device {folder if folder.is_absolute() else f'./{folder}'}"),
    ]
    return answer, "\n".join(f"{name:10}{text}" for name, text in rows)
