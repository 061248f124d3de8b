"""The commands about devices and their latency: parse, call, print.

Whatever imports torch is imported inside a command, so that a wrong argument is refused at once.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from quadnas.cli_options import MODEL, Batch, InputSize, Json, print_answer
from quadnas.errors import ConfigError, CoverageError
from quadnas.units import parse_latency_ms

predictors_app = typer.Typer(
    help="Latency predictors of devices.", no_args_is_help=True, rich_markup_mode=None
)

devices_app = typer.Typer(
    help="Devices and how well their latency is known.", invoke_without_command=True, rich_markup_mode=None
)


def latency(
    model: Annotated[Path, typer.Argument(help=f"{MODEL[:-1]}, or any network as an ONNX file.")],
    device: Annotated[str, typer.Option("--device", help="Device name or path of its folder.")],
    batch: Batch = None,
    input_size: InputSize = None,
    measured: Annotated[
        float | None,
        typer.Option(
            "--measured",
            parser=parse_latency_ms,
            metavar="287ms",
            help="What your device really took: recorded.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict the latency of a model on a device, kernel by kernel, with its coverage and interval.

    With --measured, the latency on your own device is recorded under $QUADNAS_HOME and compared; from the second
    measurement on, predictions on that device are scaled by what you measured.
    """
    from quadnas.latency.measurements import Measured

    today = datetime.now(UTC).date().isoformat()
    own = None if measured is None else Measured(model, measured, today)
    if model.suffix == ".onnx":
        from quadnas.report.onnx_latency import predict_onnx_latency

        answer, text = predict_onnx_latency(model, device, batch, input_size, own)
    else:
        from quadnas.report.tables import predict_latency
        from quadnas.space.model_family import find_model

        answer, text = predict_latency(find_model(model), device, batch, input_size, own)
    print_answer(answer, as_json, text)
    if answer["latency_ms"] is None:
        unpriced = dict.fromkeys(kernel["op"] for kernel in answer["kernels"] if kernel["ms"] is None)
        raise CoverageError(
            f"{device} has no price for {', '.join(unpriced)} in {model}: no total can be given"
        )


def calibrate(
    device: Annotated[str, typer.Option("--device", help="The name of the new device.")],
    runtime: Annotated[str, typer.Option("--runtime", help="torch, onnxruntime or openvino.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for card, arrays and measurements [$QUADNAS_HOME/latency_predictors/NAME]."
        ),
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", help="Search space of the whole networks [quadranet_xs].")
    ] = None,
    input_size: InputSize = None,
    threads: Annotated[int | None, typer.Option("--threads", help="Pinned threads [1].")] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="What it may take, roughly [25].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure kernels and networks on this machine and make a device of it; the same command resumes it."""
    given = {"device": device, "runtime": runtime, "space": space, "input_size": input_size,
             "threads": threads, "minutes": minutes}  # fmt: skip
    from quadnas.calibrate.own.settings import CalibrateSettings, calibration_folder
    from quadnas.config import validated

    chosen = {key: value for key, value in given.items() if value is not None}
    settings = validated(chosen, CalibrateSettings, "the command line")
    path = calibration_folder(settings.device, out)
    from quadnas.calibrate.own.device import calibrate_here

    card = calibrate_here(settings, path, lambda text: typer.echo(text, err=True))
    from quadnas.report.calibration import describe_calibration

    answer, text = describe_calibration(card, path)
    print_answer(answer, as_json, text)


@devices_app.callback()
def list_all(context: typer.Context, as_json: Json = False) -> None:
    """List the devices: what they are, how their latency is known, and their held-out error."""
    if context.invoked_subcommand is None:
        from quadnas.report.devices import list_devices

        answer, text = list_devices()
        print_answer(answer, as_json, text)


@devices_app.command("show")
def show(
    device: Annotated[str, typer.Argument(help="Device name or path of its folder.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Measured networks (.jsonl or .jsonl.gz) to check it on.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="With --data: a picture (.png, .svg, .pdf) of the error.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a device's prices are founded on, operator by operator, and how far they err."""
    from quadnas.report.devices import show_device

    if plot is not None and data is None:
        raise ConfigError("--plot draws predictions against measured networks: give these with --data FILE")
    answer, text = show_device(device)
    if data is not None:
        from quadnas.report.scatter import check_and_draw

        answer["checked"], checked = check_and_draw(device, data, plot)
        text = f"{text}\n\n{checked}"
    print_answer(answer, as_json, text)


@predictors_app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="nn-Meter's name, such as cortexA76cpu_tflite21.")],
) -> None:
    """Download nn-Meter's published predictor (1 to 3 GB), verify it, and make it a device of yours."""
    from quadnas.nnmeter.fetch import fetch_official

    typer.echo(f"{fetch_official(name)}: quadnas devices show {name}")


@predictors_app.command("import")
def import_predictor(
    path: Annotated[Path, typer.Argument(help="Folder or zip file with nn-Meter's .pkl files.")],
    name: Annotated[str, typer.Option("--as", help="Name of the new device.")],
) -> None:
    """Make a device of nn-Meter's forests that you have; nothing in them is executed."""
    from quadnas.nnmeter.fetch import import_forests

    typer.echo(f"{import_forests(path, name)}: quadnas devices show {name}")


@predictors_app.command("evaluate")
def evaluate_predictor(
    device: Annotated[str, typer.Option("--device", help="Device name or path of its folder.")],
    data: Annotated[Path, typer.Option("--data", help="Measured networks (.jsonl or .jsonl.gz).")],
    column: Annotated[str | None, typer.Option("--column", help="Key of latency_ms [the device's].")] = None,
    as_json: Json = False,
) -> None:
    """Compare a device's predictions with measured networks."""
    from quadnas.report.tables import evaluate_device

    answer, text = evaluate_device(device, data, column)
    print_answer(answer, as_json, text)


@predictors_app.command("fit")
def fit_predictor(
    name: Annotated[str, typer.Argument(help="The device, as its recipe is named.")],
    data: Annotated[list[Path], typer.Option("--data", help="Measured networks; repeat for several files.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for card and arrays.")],
    ffn_blocks: Annotated[
        Path | None, typer.Option("--ffn-blocks", help="Measured blocks (JSON) that calibrate LayerNorm.")
    ] = None,
    kernel_tables: Annotated[
        Path | None,
        typer.Option("--kernel-tables", help="Folder of NeuSight's and TensorRT's kernels, for an A100."),
    ] = None,
    select: Annotated[
        bool, typer.Option("--select", help="Choose the terms anew, on the training networks alone.")
    ] = False,
) -> None:
    """Fit a device's latency model to measured networks, and write its card and arrays."""
    from quadnas.calibrate.fit import fit_device

    card = fit_device(name, data, out, ffn_blocks, kernel_tables, select)
    typer.echo(f"{out}: {card.accuracy}")
