"""The command line: parse, call, map errors to exit codes; nothing else.

Whatever imports torch is imported inside a command, so that a wrong argument is refused at once.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quadnas import cli_compare, cli_latency
from quadnas.cli_options import (
    MODEL,
    Batch,
    Confidence,
    Config,
    Data,
    Devices,
    Front,
    InputSize,
    Json,
    Latencies,
    Margin,
    MaxBytes,
    MaxMacs,
    MaxParameters,
    Resume,
    Seed,
    TrainSize,
    check_resumable,
    latency_settings,
    print_answer,
    require_command,
    unused_folder,
)
from quadnas.errors import ConfigError, MachineError, QuadnasError

if TYPE_CHECKING:
    from quadnas.run.folder import RunFolder
    from quadnas.search.work import Work
    from quadnas.training.distributed import Ranks
    from quadnas.training.standalone import TrainSettings

app = typer.Typer(
    help="The best vision network that runs within X ms on device D.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # or a default in brackets would vanish as markup
)
spaces_app = typer.Typer(help="Search spaces.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(spaces_app, name="spaces")
app.add_typer(cli_latency.devices_app, name="devices")
app.add_typer(cli_latency.predictors_app, name="predictors")


@app.command()
def search(
    device: Devices = None,
    max_latency: Latencies = None,
    limits: Front = None,
    max_parameters: MaxParameters = None,
    max_macs: MaxMacs = None,
    max_bytes: MaxBytes = None,
    space: Annotated[
        str | None, typer.Option("--space", help="Search space name or file [quadranet].")
    ] = None,
    data: Data = None,
    strategy: Annotated[str | None, typer.Option("--strategy", help="Search strategy [swap].")] = None,
    input_size: InputSize = None,
    train_size: TrainSize = None,
    batch: Batch = None,
    latency_margin: Margin = None,
    confidence: Confidence = None,
    seed: Seed = None,
    retrain_epochs: Annotated[
        int | None, typer.Option("--retrain-epochs", help="Passes over the data in retraining; 0 skips it.")
    ] = None,
    config: Config = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder [runs/SPACE-DEVICE-LIMIT].")] = None,
    resume: Resume = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write scalars for TensorBoard into the run folder as well.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find the best network of a space that runs within a latency limit, export and retrain it."""
    given: dict[str, Any] = {
        **latency_settings(device or (), max_latency or (), limits or ()),
        "max_parameters": max_parameters,
        "max_macs": max_macs,
        "max_bytes": max_bytes,
        "space": space,
        "data": data,
        "strategy": strategy,
        "input_size": input_size,
        "train_size": train_size,
        "batch": batch,
        "latency_margin": latency_margin,
        "confidence": confidence,
        "seed": seed,
    }
    chosen = {key: value for key, value in given.items() if value is not None}
    if retrain_epochs is not None:
        chosen["schedule"] = {"retrain_epochs": retrain_epochs}
    if not (resume or config or (device and (max_latency or limits))):
        raise ConfigError(
            "a search needs --device and --max-latency, as in quadnas search --device cortexA76 "
            "--max-latency 300ms; or --config FILE, or --resume RUN"
        )
    if resume:
        check_resumable(resume, chosen, config, out)
    _search(
        lambda ranks: _resumed_search(resume, ranks) if resume else _new_search(chosen, config, out, ranks),
        tensorboard=tensorboard,
        as_json=as_json,
    )


@app.command()
def export(
    source: Annotated[
        Path,
        typer.Argument(
            help="The folder that a search wrote, a model spec with its weights beside it, or a model by name."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The file to write [model.yaml, .config, .onnx, .xml, .tflite]."),
    ] = None,
    to: Annotated[str, typer.Option("--to", help="spec, net-config, onnx, openvino or litert.")] = "spec",
) -> None:
    """Write a network as model spec and weights, or for a runtime, checked against PyTorch before it appears."""
    from quadnas.export.base import export_model

    for path in export_model(source, out, to):
        typer.echo(path)


@app.command()
def train(
    model: Annotated[Path | None, typer.Argument(help=MODEL)] = None,
    data: Data = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Passes over the training data [20].")
    ] = None,
    train_size: TrainSize = None,
    seed: Seed = None,
    init_from: Annotated[
        Path | None,
        typer.Option(
            "--init-from", help="Start from weights: this model's, or a ConvNeXt's by timm's names."
        ),
    ] = None,
    config: Config = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder [runs/train-MODEL].")] = None,
    resume: Resume = None,
    as_json: Json = False,
) -> None:
    """Train a network from its model spec alone; in several processes if torchrun starts it so."""
    given = {
        "data": data,
        "epochs": epochs,
        "train_size": train_size,
        "seed": seed,
        "init_from": str(init_from) if init_from else None,
    }
    chosen = {key: value for key, value in given.items() if value is not None}
    if resume:
        check_resumable(resume, chosen, model, config, out)
    elif model is None:
        raise ConfigError(
            "quadnas train needs a model (quadnas train model.yaml, quadnas train quadranet12_xxs) or --resume RUN"
        )
    from quadnas.report.progress import Progress
    from quadnas.run.folder import RunFolder
    from quadnas.run.interrupt import stop_requested
    from quadnas.training import standalone
    from quadnas.training.distributed import joined

    with joined() as ranks:
        if model is None:
            assert resume
            folder = RunFolder.open(resume)
            require_command(folder, "train")
        else:
            settings = _training_settings(model, chosen, config)
            folder = standalone.new_run(settings, out or unused_folder("runs", f"train-{model.stem}"), ranks)
        lock = folder if ranks.leads else nullcontext()
        with lock, stop_requested() as stop, Progress(sys.stderr) as progress:
            score = standalone.train_network(folder, progress, stop, ranks=ranks)
    if ranks.leads:
        text = f"test accuracy {score.accuracy:.4f}, loss {score.loss:.4f}; weights in {folder.path}"
        print_answer({"run": str(folder.path), **asdict(score)}, as_json, text)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help=MODEL)],
    weights: Annotated[Path, typer.Argument(help="Its weights (safetensors).")],
    data: Data = None,
    train_size: TrainSize = None,
    as_json: Json = False,
) -> None:
    """Measure the accuracy of a network with given weights on the test split."""
    from quadnas.space.model_family import find_model
    from quadnas.training.standalone import evaluate_weights

    score, size = evaluate_weights(find_model(model), weights, data or "digits", train_size)
    text = f"test accuracy {score.accuracy:.4f}, loss {score.loss:.4f}, {score.images} images of side {size}"
    print_answer({**asdict(score), "size": size}, as_json, text)


@app.command()
def models(
    name: Annotated[
        str | None, typer.Argument(help="One model, by name or as a file [all that have a name].")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the models with their parameters, multiply-accumulates and input size."""
    from quadnas.space.model_family import find_model, find_models

    specs = find_models() if name is None else [find_model(name)]
    from quadnas.report.models import list_models

    rows, text = list_models(specs)
    print_answer(rows, as_json, text)


@app.command()
def why(
    run: Annotated[Path, typer.Argument(help="The folder that a search wrote.")],
    slot: Annotated[
        str | None, typer.Argument(help="One slot with all its candidates, such as 2.3 [all].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say of every slot why it holds its block: what it costs and gains against the next best that would fit."""
    from quadnas.report.terminal import why_text
    from quadnas.run.folder import RunFolder
    from quadnas.search.front import RESULT
    from quadnas.search.result import read_result

    folder = RunFolder.open(run)
    require_command(folder, "search")
    if not (run / RESULT).exists():
        raise ConfigError(f"{run} has found no network yet; quadnas search --resume {run} goes on with it")
    answer, text = why_text(folder, read_result(run / RESULT), slot)
    print_answer(answer, as_json, text)


app.command()(cli_compare.compare)
app.command()(cli_latency.latency)
app.command()(cli_latency.calibrate)


@spaces_app.command("list")
def list_spaces() -> None:
    """Name the search spaces."""
    from quadnas.resources import available

    for name, path in available("search_spaces").items():
        typer.echo(f"{name:20} {path}")


@spaces_app.command("show")
def show_space(
    name: Annotated[str, typer.Argument(help="Search space name or file.")],
    device: Annotated[list[str] | None, typer.Option("--device", help="Only these devices [all].")] = None,
    batch: Batch = None,
    input_size: InputSize = None,
    as_json: Json = False,
) -> None:
    """Print the size of a space and the latencies of its architectures on every device."""
    from quadnas.report.tables import describe_space

    answer, text = describe_space(name, device, batch, 224 if input_size is None else input_size)
    print_answer(answer, as_json, text)


def _training_settings(model: Path, chosen: dict[str, Any], config: Path | None) -> "TrainSettings":
    from quadnas.config import overlaid, read_mapping, validated
    from quadnas.space.model_family import find_model
    from quadnas.training.standalone import TrainSettings

    merged = overlaid(read_mapping(config) if config else {}, chosen)
    if "model" in merged:
        raise ConfigError(f"{config}: the model is given on the command line, not in a file; remove 'model'")
    merged["model"] = find_model(model).model_dump()
    return validated(merged, TrainSettings, str(config) if config else "the command line")


def _search(begin: "Callable[[Ranks], tuple[Work, RunFolder]]", *, tensorboard: bool, as_json: bool) -> None:
    """Carry a search out, alone or as one of several processes, and print what it found."""
    from quadnas.report.front import front_text
    from quadnas.report.observers import observed
    from quadnas.report.page import write_report
    from quadnas.report.tensorboard import require_tensorboard
    from quadnas.report.terminal import architecture_text, short_answer, summary_text
    from quadnas.run.events import Observer, all_of
    from quadnas.run.interrupt import stop_requested
    from quadnas.search import loop
    from quadnas.search.front import read_front
    from quadnas.training.distributed import joined

    if tensorboard:
        require_tensorboard()
    with joined() as ranks, ExitStack() as held:
        work, folder = begin(ranks)
        settings, card = work.problem.settings, work.problem.model.card
        observe: Observer = all_of()
        if ranks.leads:
            held.enter_context(folder)
        stop = held.enter_context(stop_requested())
        if ranks.leads:
            observe = held.enter_context(observed(work, folder, sys.stderr, tensorboard=tensorboard))
        result = loop.search(work, folder, observe, stop)
        if ranks.leads:
            write_report(folder, settings, result, card)
    if not ranks.leads:
        return
    front = read_front(settings, folder.path)
    if as_json:
        for point in front:
            print_answer({"run": str(folder.path), **short_answer(point)}, as_json, "")
    else:
        summary = summary_text(settings, result, card, folder.path)
        typer.echo(f"{architecture_text(result)}\n\n{summary}{front_text(front)}")


def _new_search(
    chosen: dict[str, Any], config: Path | None, out: Path | None, ranks: "Ranks"
) -> "tuple[Work, RunFolder]":
    """Everything is checked before there is a run folder."""
    from quadnas.config import overlaid, read_mapping, validated
    from quadnas.run.folder import RunFolder
    from quadnas.search.settings import SearchSettings
    from quadnas.search.work import prepare

    merged = overlaid(read_mapping(config) if config else {}, chosen)
    settings = validated(merged, SearchSettings, str(config) if config else "the command line")
    work = prepare(settings, ranks)
    name = f"{Path(settings.space).stem}-{Path(settings.device).name}-{settings.max_latency_ms:g}ms"
    path = out or unused_folder("runs", name)
    if ranks.leads:
        RunFolder.create(path, settings.model_dump(mode="json"))
    return work, RunFolder.open(Path(ranks.told(str(path))))


def _resumed_search(run: Path, ranks: "Ranks") -> "tuple[Work, RunFolder]":
    from quadnas.config import validated
    from quadnas.run.folder import RunFolder
    from quadnas.search.settings import SearchSettings
    from quadnas.search.work import prepare

    folder = RunFolder.open(run)
    require_command(folder, "search")
    return prepare(validated(folder.settings, SearchSettings, str(run)), ranks), folder


def main() -> None:
    """Run the command line; every error of a user ends in one message and its exit code."""
    try:
        app()
    except QuadnasError as error:
        typer.echo(f"quadnas: {error}", err=True)
        sys.exit(error.exit_code)
    except (OSError, MemoryError) as error:
        typer.echo(f"quadnas: {error or 'out of memory'}; nothing was changed by this step", err=True)
        sys.exit(MachineError.exit_code)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        typer.echo(
            f"quadnas: out of memory ({' '.join(str(error).split())[:200]}); what was committed is intact; give "
            "a smaller recipe.batch_size, a larger recipe.gradient_accumulation, or recipe.gradient_checkpointing",
            err=True,
        )
        sys.exit(MachineError.exit_code)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Torch's, which for the CPU has no class of its own; known without importing torch."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


if __name__ == "__main__":
    main()
