"""The command that runs an experiment: ``quadnas compare``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from quadnas.cli_options import (
    Json,
    Resume,
    check_resumable,
    print_answer,
    require_command,
    require_one_process,
    unused_folder,
)
from quadnas.errors import ConfigError


def compare(
    file: Annotated[Path | None, typer.Argument(help="An experiment (YAML), see experiments/paper.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder [runs/FILE].")] = None,
    resume: Resume = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Arms at once [1; on a cluster: all].")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="Run on a cluster by its engine: slurm, ray.")
    ] = None,
    cluster_option: Annotated[
        list[str] | None,
        typer.Option(
            "--cluster-option",
            metavar="KEY=VALUE",
            help="Of every job: cpus, gpus, memory_gb; for slurm also hours, partition.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run an experiment: all its arms side by side, in one table, one picture and one page."""
    require_one_process("compare")
    if resume:
        check_resumable(resume, out)
    elif file is None:
        raise ConfigError(
            "quadnas compare needs an experiment (quadnas compare experiments/paper/figure2_xor.yaml) "
            "or --resume RUN"
        )
    from quadnas.compare import engine, result
    from quadnas.compare.executor import executor_for, require_undisturbed
    from quadnas.compare.experiment import experiment_from, read_experiment
    from quadnas.compare.machine import machine_text
    from quadnas.report.progress import Progress
    from quadnas.run.folder import RunFolder
    from quadnas.run.interrupt import stop_requested

    executor = executor_for(workers, cluster, cluster_option or ())
    experiment = read_experiment(file) if file else None
    if resume:
        folder = RunFolder.open(resume)
        require_command(folder, "compare")
        if experiment:
            engine.require_same(experiment, folder, str(file))
        experiment = experiment_from(folder.settings, str(resume))
        require_undisturbed(experiment, executor)
        work = experiment.prepare()
    else:
        assert file is not None and experiment is not None
        require_undisturbed(experiment, executor)
        work = experiment.prepare()  # what is missing is refused before there is a run folder
        path = out or unused_folder("runs", file.stem)
        folder = RunFolder.create(path, experiment.model_dump(mode="json"))
    with folder, stop_requested() as stop, Progress(sys.stderr) as progress:
        outcome = engine.run_experiment(experiment, work, folder, progress, stop, executor)
        result.write_outcome(experiment, outcome, folder, "; ".join(outcome.machines) or machine_text())
    answer = {"run": str(folder.path), "kind": experiment.kind, **outcome.table.as_data()}
    print_answer(answer, as_json, f"{outcome.table.as_text()}\n\n{folder.path / result.PAGE}")
    engine.raise_failures(outcome, folder)
