"""The wheel, built from the sdist, works wherever it is installed and brings its data along."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.structure.source import PACKAGE, ROOT

DATA = ("search_spaces", "latency_predictors", "models", "experiments")


def run(*arguments: object, cwd: Path, path: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), **({"PYTHONPATH": str(path)} if path else {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from nothing else."""
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed."""
    folder = tmp_path_factory.mktemp("site")
    (wheel,) = built.glob("*.whl")
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel, cwd=built)
    return folder


def files(folder: Path) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def test_the_wheel_holds_the_package_and_the_data(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert files(PACKAGE) <= names
    assert "quadnas/report/page.html" in names
    for folder in DATA:
        shipped = {f"quadnas/_data/{name}" for name in files(ROOT / folder)}
        assert shipped
        assert shipped <= names
    for device in ("cortexA76", "myriadvpu", "a100"):
        assert f"quadnas/_data/latency_predictors/{device}/card.yaml" in names
        assert f"quadnas/_data/latency_predictors/{device}/coefficients.safetensors" in names
    assert not [name for name in names if name.startswith("tests/") or "__pycache__" in name]


def test_the_sdist_holds_everything_needed_to_test_it(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("quadnas", "tests", *DATA):
        assert files(ROOT / folder) <= names, folder
    assert {"pyproject.toml", "README.md"} <= names


def test_the_installed_package_finds_its_data_from_anywhere(installed: Path, tmp_path: Path) -> None:
    """``-S`` leaves out site-packages, and with them the editable checkout."""
    code = (
        "import sys, quadnas.resources as r\n"
        "for kind in ('search_spaces', 'latency_predictors', 'models', 'experiments'):\n"
        "    for name, path in r.available(kind).items(): print(kind, name, path)\n"
        "print(sys.path, file=sys.stderr)"
    )
    found = [line.split(" ", 2) for line in run("-S", "-c", code, cwd=tmp_path, path=installed).splitlines()]
    names = {(kind, name) for kind, name, _ in found}
    assert {("search_spaces", "quadranet"), ("models", "quadranet"), ("experiments", "quickstart")} <= names
    assert {("latency_predictors", device) for device in ("cortexA76", "myriadvpu", "a100")} <= names
    assert all(Path(path).is_relative_to(installed / "quadnas" / "_data") for _, _, path in found)


def test_the_installed_program_runs_from_anywhere(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys, quadnas; assert quadnas.__file__.startswith(sys.argv[1]); "
        "from quadnas.latency.devices import load_device; print(load_device('cortexA76').card.device)"
    )
    assert run("-c", code, installed, cwd=tmp_path, path=installed) == "cortexA76\n"
    listed = run("-m", "quadnas.cli", "spaces", "list", cwd=tmp_path, path=installed)
    assert "quadranet" in [line.split()[0] for line in listed.splitlines()]
    script = (installed / "bin" / "quadnas").read_text()
    assert re.search(r"from quadnas\.cli import main", script)


def test_the_version_is_said_once() -> None:
    from importlib.metadata import version

    assert f'version = "{version("quadnas")}"' in (ROOT / "pyproject.toml").read_text()
