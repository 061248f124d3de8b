"""The options that several commands share, and how a command answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quadnas.errors import ConfigError
from quadnas.units import parse_latency_ms, parse_percent

if TYPE_CHECKING:
    from quadnas.run.folder import RunFolder

MODEL = "A model by name (quadnas models lists them), or its spec (YAML)."
"""What the argument of most commands is."""
Latency = Annotated[
    float | None,
    typer.Option(
        "--max-latency", parser=parse_latency_ms, metavar="300ms", help="The hard limit; units us, ms, s."
    ),
]
Margin = Annotated[
    float | None,
    typer.Option(
        "--latency-margin", parser=parse_percent, metavar="5%", help="Stay that far below the limit."
    ),
]
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
            "(quadnas train is the command that shares its work)"
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
