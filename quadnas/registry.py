"""Named objects: refuses duplicates, suggests near matches, loads third-party entry points."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Generic, TypeVar, cast

from quadnas.errors import ConfigError

T = TypeVar("T")
Item = TypeVar("Item")


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """The tail of an error message: the nearest valid name, then all of them."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}allowed: {', '.join(names)}"


class Registry(Generic[T]):
    """Maps names to objects of one kind.

    The modules of ``package`` register themselves when they are imported; installed distributions add more
    under the entry-point group ``group``. Both are loaded on the first look-up.
    """

    def __init__(self, kind: str, package: str, group: str) -> None:
        self._kind = kind
        self._package = package
        self._group = group
        self._items: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[Item], Item]:
        """Decorate an object to make it known as ``name``; raises ValueError if the name is taken."""

        def add(item: Item) -> Item:
            if name in self._items:
                raise ValueError(f"{self._kind} {name!r} is registered twice")
            self._items[name] = cast(T, item)
            return item

        return add

    def __getitem__(self, name: str) -> T:
        self._load()
        try:
            return self._items[name]
        except KeyError:
            raise ConfigError(f"unknown {self._kind} {name!r}; {did_you_mean(name, self._items)}") from None

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._items))

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for module in iter_modules(import_module(self._package).__path__):
            import_module(f"{self._package}.{module.name}")
        for entry in entry_points(group=self._group):
            entry.load()
