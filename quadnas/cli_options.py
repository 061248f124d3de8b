"""The options that several commands share, and how a command answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quadnas.errors import ConfigError
from quadnas.units import (
    LatenciesMs,
    parse_bytes,
    parse_count,
    parse_latencies_ms,
    parse_latency_ms,
    parse_percent,
)

if TYPE_CHECKING:
    from quadnas.run.folder import RunFolder

MODEL = "A model by name (quadnas models lists them), or its spec (YAML)."
"""What the argument of most commands is."""
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", help="Device name or path of its folder; with --max-latency for every one."),
]
Latencies = Annotated[
    list[float] | None,
    typer.Option(
        "--max-latency",
        parser=parse_latency_ms,
        metavar="300ms",
        help="The hard limit on the device of the same place; units us, ms, s.",
    ),
]
Front = Annotated[
    LatenciesMs | None,
    typer.Option(
        "--limits",
        parser=parse_latencies_ms,
        metavar="100ms,200ms",
        help="Instead of the first --max-latency: a network for each of these limits.",
    ),
]
MaxParameters = Annotated[
    int | None, typer.Option("--max-parameters", parser=parse_count, metavar="5M", help="At most so many.")
]
MaxMacs = Annotated[
    int | None,
    typer.Option(
        "--max-macs", parser=parse_count, metavar="600M", help="Multiply-accumulates of one image, at most."
    ),
]
MaxBytes = Annotated[
    int | None,
    typer.Option(
        "--max-bytes", parser=parse_bytes, metavar="20MB", help="Weights in fp32 as deployed, at most."
    ),
]
Margin = Annotated[
    float | None,
    typer.Option(
        "--latency-margin", parser=parse_percent, metavar="5%", help="Stay that far below the limit."
    ),
]
Confidence = Annotated[
    float | None, typer.Option("--confidence", help="Hold the limit with this probability, e.g. 0.9.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Fixes everything that is random [0].")]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON on stdout.")]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="digits, fashion-mnist, cifar10:PATH, cifar100:PATH, imagenet:PATH, folder:PATH [digits].",
    ),
]
TrainSize = Annotated[
    int | None,
    typer.Option("--train-size", help="Side of the training images in pixels [the data set's own]."),
]
Resume = Annotated[Path | None, typer.Option("--resume", help="Go on with an interrupted run.")]
Config = Annotated[
    Path | None, typer.Option("--config", help="YAML file with any setting; options given here win.")
]
Batch = Annotated[int | None, typer.Option("--batch", help="Images per inference [the device's default].")]
InputSize = Annotated[
    int | None,
    typer.Option("--input-size", help="Side of the images at deployment, for the latency [224]."),
]


def latency_settings(
    devices: Sequence[str], latencies_ms: Sequence[float], front_ms: Sequence[float]
) -> dict[str, Any]:
    """The settings that ``--device``, ``--max-latency`` and ``--limits`` stand for; raises ConfigError.

    The n-th limit is that of the n-th device; a front takes the place of the first limit.
    """
    limits_ms = [*front_ms[-1:], *latencies_ms]
    if max(len(devices), len(limits_ms)) > 1 and len(devices) != len(limits_ms):
        raise ConfigError(
            f"{len(devices)} --device and {len(limits_ms)} limits on latency: each --device takes a --max-latency "
            "(the first may take --limits instead), in the same order"
        )
    found: dict[str, Any] = {}
    if devices:
        found["device"] = devices[0]
    if limits_ms:
        found["max_latency_ms"] = limits_ms[0]
        found["tighter_limits_ms"] = tuple(front_ms[:-1])
    if devices and limits_ms:
        pairs = zip(devices[1:], limits_ms[1:], strict=True)
        found["also"] = tuple({"device": name, "max_latency_ms": limit_ms} for name, limit_ms in pairs)
    return found


def print_answer(answer: Mapping[str, Any] | Sequence[Any], as_json: bool, text: str) -> None:
    """Print ``answer`` as one line of JSON, or ``text``."""
    typer.echo(json.dumps(answer) if as_json else text)


def check_resumable(run: Path, *settings: object) -> None:
    """A resumed run keeps the settings it started with, and nobody else may be writing it.

    The lock is tried before torch is imported: a second command is refused at once. Raises ConfigError,
    MachineError.
    """
    from quadnas.run.lock import Lock
    from quadnas.training.launch import launched

    if any(settings):
        raise ConfigError("--resume takes every setting from the run; give no other setting beside it")
    if launched().rank == 0 and (run / "lock").is_file():
        lock = Lock(run / "lock")
        lock.acquire()
        lock.release()


def require_one_process(command: str) -> None:
    """Raise ConfigError if torchrun started several processes of a command that cannot share its work."""
    from quadnas.training.launch import launched

    if (world := launched().world) > 1:
        raise ConfigError(
            f"quadnas {command} runs in one process, and torchrun started {world}; start it without torchrun "
            "(quadnas train and quadnas search share their work)"
        )


def require_command(folder: "RunFolder", command: str) -> None:
    """Raise ConfigError if the run was written by another command than this one."""
    if folder.command != command:
        raise ConfigError(
            f"{folder.path} was not written by quadnas {command}; quadnas {folder.command} --resume goes on with "
            "it"
        )


def unused_folder(folder: str, name: str) -> Path:
    """``folder/name``, with a number behind it if that exists."""
    path, number = Path(folder, name), 1
    while path.exists():
        number += 1
        path = Path(folder, f"{name}-{number}")
    return path
