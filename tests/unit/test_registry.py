"""A registry finds the modules of its package and installed plug-ins by name, and refuses duplicates."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from quadnas.errors import ConfigError
from quadnas.registry import Registry, did_you_mean


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable, empty package called ``shelf``; what is imported of it is forgotten afterwards."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "base.py").write_text(
        "from quadnas.registry import Registry\n"
        "ITEMS: Registry[object] = Registry('thing', 'shelf', 'shelf.things')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "shelf"]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def items() -> "Registry[object]":
    from shelf.base import ITEMS  # type: ignore[import-not-found]

    registry: Registry[object] = ITEMS
    return registry


def test_a_file_in_the_package_registers_itself(package: Path) -> None:
    (package / "one.py").write_text("from shelf.base import ITEMS\nITEMS.register('one')('the first')\n")
    assert items()["one"] == "the first"
    assert list(items()) == ["one"]


def test_an_installed_distribution_adds_by_entry_point(package: Path) -> None:
    plugin = package.parent / "plugin-1.0.dist-info"
    plugin.mkdir()
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (plugin / "entry_points.txt").write_text("[shelf.things]\ntwo = elsewhere\n")
    (package.parent / "elsewhere.py").write_text("from shelf.base import ITEMS\nITEMS.register('two')(2)\n")
    assert items()["two"] == 2


def test_nothing_is_imported_before_the_first_look_up(package: Path) -> None:
    (package / "loud.py").write_text("raise RuntimeError('imported')\n")
    registry = items()
    with pytest.raises(RuntimeError, match="imported"):
        registry["anything"]


def test_an_unknown_name_is_refused_with_the_nearest_and_all(package: Path) -> None:
    (package / "some.py").write_text(
        "from shelf.base import ITEMS\nITEMS.register('quadra')(1)\nITEMS.register('mbconv')(2)\n"
    )
    with pytest.raises(
        ConfigError, match=r"unknown thing 'quadro'; did you mean 'quadra'\? allowed: mbconv, quadra"
    ):
        items()["quadro"]


def test_a_name_is_taken_once() -> None:
    registry: Registry[Callable[[], None]] = Registry("thing", "quadnas.latency.backends", "none")
    registry.register("a")(print)
    with pytest.raises(ValueError, match="thing 'a' is registered twice"):
        registry.register("a")(print)


def test_no_hint_where_nothing_is_near() -> None:
    assert did_you_mean("zebra", ["b", "a"]) == "allowed: a, b"
