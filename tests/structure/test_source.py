"""The house rules that a reader can check by eye, checked on the syntax trees."""

import ast

import pytest

from tests.structure.source import PACKAGE, Module, modules

FLOORS = [
    {"cli"},
    {"cli_latency", "cli_compare"},
    {"cli_options"},
    {"testing"},
    {"compare"},
    {"report", "calibrate", "export", "nnmeter"},
    {"search"},
    {"training", "supernet", "network", "sizes"},
    {"blocks", "ops"},
    {"latency"},
    {"space", "run", "config", "data"},
    {"units", "registry", "errors", "extras", "resources", "__init__"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

EXECUTING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
EXECUTING_CALLS = {
    "eval", "exec", "compile", "__import__", "torch.load", "torch.jit.load", "torch.hub.load", "yaml.unsafe_load",
    "yaml.full_load", "yaml.load_all", "pandas.read_pickle", "pd.read_pickle", "os.system", "os.popen",
}  # fmt: skip


def upward(module: Module) -> list[str]:
    """Imports that lead to a higher floor, or to ``quadnas.testing`` from anywhere else."""
    found = []
    for name in module.imports():
        if name.split(".")[0] == "quadnas":
            room = Module(name, "").room
            for_tests = room == "testing" != module.room
            if for_tests or (room in FLOOR_OF and FLOOR_OF[room] < FLOOR_OF[module.room]):
                found.append(f"{module.name} imports {name}")
    return found


def test_every_room_has_its_floor() -> None:
    assert {module.room for module in modules()} <= set(FLOOR_OF)


def test_imports_go_downwards_only() -> None:
    assert [line for module in modules() for line in upward(module)] == []


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("quadnas.search.loop", "from quadnas.report.page import write_report", 1),
        ("quadnas.search.loop", "import quadnas.cli", 1),
        (
            "quadnas.latency.table",
            "def f():\n    if True:\n        from quadnas.blocks.base import BLOCKS",
            1,
        ),
        ("quadnas.units", "from quadnas import config, errors", 1),
        ("quadnas.cli", "from quadnas.testing import blocks", 1),
        ("quadnas.testing.blocks", "import quadnas.cli", 1),
        ("quadnas.testing.blocks", "from quadnas.report.page import write_report", 0),
        ("quadnas.cli", "from quadnas.report.page import write_report\nimport quadnas.errors, json", 0),
        ("quadnas.space.layer", "from quadnas.config import Settings", 0),
    ],
)
def test_the_check_itself_sees_an_import_upwards(name: str, text: str, count: int) -> None:
    assert len(upward(Module(name, text))) == count


def test_a_block_family_imports_no_other_family() -> None:
    families = [
        m for m in modules() if m.name.startswith("quadnas.blocks.") and m.name != "quadnas.blocks.base"
    ]
    assert len(families) >= 4
    for module in families:
        theirs = {name for name in module.imports() if name.startswith("quadnas.blocks.")}
        assert all(name.startswith("quadnas.blocks.base.") for name in theirs), f"{module.name}: {theirs}"


def test_a_latency_back_end_imports_no_block() -> None:
    for module in modules():
        if module.room == "latency":
            assert not any(name.startswith("quadnas.blocks") for name in module.imports()), module.name


def test_no_module_is_longer_than_400_lines() -> None:
    assert [module.name for module in modules() if module.text.count("\n") > 400] == []


def test_nothing_that_executes_on_load() -> None:
    for module in modules():
        assert not {name.split(".")[0] for name in module.imports()} & EXECUTING, module.name
        for call in module.calls():
            called = ast.unparse(call.func)
            where = f"{module.name}:{call.lineno}: {ast.unparse(call)}"
            assert called not in EXECUTING_CALLS, where
            assert not any(keyword.arg in ("allow_pickle", "shell") for keyword in call.keywords), where


def test_yaml_is_read_in_one_place_by_a_safe_loader() -> None:
    loads = [
        (module.name, ast.unparse(call))
        for module in modules()
        for call in module.calls()
        if ast.unparse(call.func).startswith("yaml.") and "load" in ast.unparse(call.func)
    ]
    assert loads == [("quadnas.config", "yaml.load(text, _Loader)")]
    tree = next(module.tree for module in modules() if module.name == "quadnas.config")
    (loader,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "_Loader")
    assert [ast.unparse(base) for base in loader.bases] == ["yaml.SafeLoader"]


def test_nothing_global_is_random() -> None:
    """Randomness is an argument: no seed of a whole process, except inside a fork of torch's state."""
    for module in modules():
        for call in module.calls():
            called = ast.unparse(call.func)
            assert called not in {"random.seed", "np.random.seed", "numpy.random.seed"}, module.name
            if called == "torch.manual_seed":
                assert "fork_rng" in module.text, module.name


def public(module: Module) -> list[ast.ClassDef | ast.FunctionDef]:
    """The classes, their methods, and the functions of a module whose names have no underscore in front."""
    classes = [node for node in module.tree.body if isinstance(node, ast.ClassDef)]
    bodies = [module.tree.body, *(node.body for node in classes if not node.name.startswith("_"))]
    named = [node for body in bodies for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return [node for node in named if not node.name.startswith("_")]


def test_every_public_name_says_what_it_is() -> None:
    silent = [f"{m.name}.{node.name}" for m in modules() for node in public(m) if not ast.get_docstring(node)]
    assert silent == []


def test_data_folders_hold_no_code() -> None:
    for folder in ("search_spaces", "latency_predictors", "models", "experiments"):
        assert not list((PACKAGE.parent / folder).rglob("*.py"))
