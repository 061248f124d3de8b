"""The surface of the command line: commands, options, and what is known before torch is imported."""

import time
from pathlib import Path

import pytest
import typer.main

from quadnas.cli import app
from tests.cli.command import python, quadnas

COMMANDS = {
    "search": [
        "--batch", "--confidence", "--config", "--data", "--device", "--input-size", "--json",
        "--latency-margin", "--limits", "--max-bytes", "--max-latency", "--max-macs", "--max-parameters", "--out",
        "--resume", "--retrain-epochs", "--seed", "--space", "--strategy", "--tensorboard", "--train-size",
    ],
    "export": ["--out", "--to", "-o", "source"],
    "train": [
        "--config", "--data", "--epochs", "--init-from", "--json", "--out", "--resume", "--seed", "--train-size",
        "model",
    ],
    "evaluate": ["--data", "--json", "--train-size", "model", "weights"],
    "models": ["--json", "name"],
    "why": ["--json", "run", "slot"],
    "compare": ["--cluster", "--cluster-option", "--json", "--out", "--resume", "--workers", "file"],
    "latency": ["--batch", "--device", "--input-size", "--json", "--measured", "model"],
    "calibrate": ["--device", "--input-size", "--json", "--minutes", "--out", "--runtime", "--space", "--threads"],
    "spaces list": [],
    "spaces show": ["--batch", "--device", "--input-size", "--json", "name"],
    "devices": ["--json"],
    "devices show": ["--data", "--json", "--plot", "device"],
    "predictors fetch": ["name"],
    "predictors import": ["--as", "path"],
    "predictors evaluate": ["--column", "--data", "--device", "--json"],
    "predictors fit": ["--data", "--ffn-blocks", "--kernel-tables", "--out", "--select", "-o", "name"],
}  # fmt: skip

WRAPPER = (
    "import sys, atexit; atexit.register(lambda: print('torch' in sys.modules)); "
    "from quadnas.cli import main; sys.argv[0] = 'quadnas'; main()"
)


def found_commands() -> dict[str, list[str]]:
    commands = {}
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        leaves = {"": command} if command.params else {}
        for part, leaf in (leaves | getattr(command, "commands", {})).items():
            commands[f"{name} {part}".strip()] = sorted(o for p in leaf.params for o in p.opts)
    return commands


def test_commands_and_options_are_exactly_these() -> None:
    found = found_commands()
    assert {name: sorted(set(options) - {"--help"}) for name, options in found.items()} == COMMANDS


@pytest.mark.parametrize("command", ["", "spaces", "predictors", *COMMANDS])
def test_every_command_explains_itself(command: str) -> None:
    answer = quadnas(*command.split(), "--help")
    assert answer.code == 0
    assert answer.out.startswith("Usage: ")
    assert f"quadnas {command}".strip() in answer.out
    for option in COMMANDS.get(command, []):
        assert option in answer.out


def test_defaults_in_brackets_are_shown() -> None:
    text = quadnas("search", "--help").out
    for default in ("[quadranet]", "[swap]", "[digits]", "[224]", "[0]"):
        assert default in text


@pytest.mark.parametrize(
    "latency", ["0ms", "-3ms", "fast", "nan", "\N{ARABIC-INDIC DIGIT THREE}ms", "300", "1e3ms", "inf ms", ""]
)
def test_a_wrong_limit_is_refused_before_torch_is_imported(place: Path, latency: str) -> None:
    start = time.monotonic()
    answer = python("-c", WRAPPER, "search", "--device", "cortexA76", "--max-latency", latency)
    assert time.monotonic() - start < 5
    assert answer.code == 2
    assert answer.out == "False\n"
    for part in (repr(latency), "positive number with its unit", "us, ms, s", "--max-latency 300ms"):
        assert part in answer.err
    assert "Traceback" not in answer.err
    assert [path.name for path in place.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["search"],
        ["search", "--device", "cortexA76"],
        ["search", "--max-latency", "300ms"],
        ["search", "--device", "cortexA76", "--max-latency", "3ms", "--latency-margin", "100%"],
        ["search", "--device", "cortexA76", "--max-latency", "3ms", "--device", "myriadvpu"],
        ["search", "--device", "cortexA76", "--max-latency", "3ms", "--max-latency", "4ms"],
        ["search", "--device", "cortexA76", "--limits", "3ms,4"],
        ["search", "--device", "cortexA76", "--limits", "3ms", "--max-latency", "4ms"],
        ["search", "--device", "cortexA76", "--max-latency", "3ms", "--max-parameters", "5 M"],
        ["search", "--device", "cortexA76", "--max-latency", "3ms", "--max-macs", "0"],
        ["search", "--device", "cortexA76", "--max-latency", "3ms", "--max-bytes", "20"],
        ["search", "--seed", "one"],
        ["serach"],
    ],
)
def test_an_incomplete_or_mistyped_command_is_refused_before_torch(arguments: list[str]) -> None:
    answer = python("-c", WRAPPER, *arguments)
    assert (answer.code, answer.out) == (2, "False\n")
    assert "Traceback" not in answer.err


def test_the_light_modules_need_no_torch() -> None:
    modules = ["cli", "units", "config", "resources", "space.search_space", "space.model_spec",
               "space.model_family", "data.base", "latency.devices"]  # fmt: skip
    code = "import sys\n" + "".join(f"import quadnas.{m}; print(quadnas.{m}.__name__, 'torch' in sys.modules)\n"
                                    for m in modules)  # fmt: skip
    assert python("-c", code).out == "".join(f"quadnas.{m} False\n" for m in modules)


def test_spaces_and_help_need_no_torch() -> None:
    for arguments in (["spaces", "list"], ["search", "--help"]):
        assert python("-c", WRAPPER, *arguments).out.endswith("\nFalse\n")


def test_the_module_runs_as_the_program_does() -> None:
    answer = python("-m", "quadnas.cli", "spaces", "list")
    assert answer.code == 0
    assert "quadranet" in [line.split()[0] for line in answer.out.splitlines()]


def test_an_interrupt_while_nothing_runs_yet_ends_with_130() -> None:
    code = (
        "import os, signal, sys, quadnas.resources as r; from quadnas.cli import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a job in the background ignores it
        "r.available = lambda kind: os.kill(os.getpid(), signal.SIGINT); "
        "sys.argv[1:] = ['spaces', 'list']; main()"
    )
    answer = python("-c", code)
    assert answer.code == 130
    assert "Traceback" not in answer.err
