"""The options that several commands share, and how a command answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from quadnas.units import parse_latency_ms, parse_percent

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
Batch = Annotated[int | None, typer.Option("--batch", help="Images per inference [the device's default].")]
InputSize = Annotated[
    int | None,
    typer.Option("--input-size", help="Side of the images at deployment, for the latency [224]."),
]


def print_answer(answer: Mapping[str, Any] | Sequence[Any], as_json: bool, text: str) -> None:
    """Print ``answer`` as one line of JSON, or ``text``."""
    typer.echo(json.dumps(answer) if as_json else text)
