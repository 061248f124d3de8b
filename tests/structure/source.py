"""The source of the package as syntax trees: what it imports and what it calls."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "quadnas"


@dataclass(frozen=True)
class Module:
    """One file of the package under its dotted name."""

    name: str
    text: str

    @property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text)

    @property
    def room(self) -> str:
        """The first part below ``quadnas``: a module or a sub-package."""
        return [*self.name.split("."), "__init__"][1]

    def imports(self) -> Iterator[str]:
        """Every dotted name that is imported anywhere in the file, in functions and under conditions too."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.name}: relative imports hide where they lead"
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    def calls(self) -> Iterator[ast.Call]:
        """Every call in the file."""
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.Call))


def modules() -> list[Module]:
    """All files of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append(Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path.read_text()))
    assert len(found) > 50
    return found
