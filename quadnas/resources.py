"""Where named files lie: shipped with the package, in the user's $QUADNAS_HOME, or at a path."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from quadnas.errors import ConfigError
from quadnas.registry import did_you_mean

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_PACKAGE = Path(__file__).parent
_KINDS = {
    "search_spaces": "search space",
    "latency_predictors": "device",
    "models": "model family",
    "experiments": "experiment",
    "measurements": "device",
}


def _folders(kind: str) -> Iterator[Path]:
    """Later folders win: the user's own files replace shipped ones of the same name."""
    bundled = _PACKAGE / "_data" / kind
    yield bundled if bundled.is_dir() else _PACKAGE.parent / kind
    yield own_home() / kind


def is_name(text: str) -> bool:
    """Whether a text is a bare name, not a path: letters, digits, - and _."""
    return _NAME.fullmatch(text) is not None


def available(kind: str) -> dict[str, Path]:
    """All named entries of a data folder such as ``search_spaces``: name -> path."""
    entries: dict[str, Path] = {}
    for folder in _folders(kind):
        if folder.is_dir():
            found = (p for p in folder.iterdir() if p.suffix == ".yaml" or (p / "card.yaml").is_file())
            entries.update((path.stem, path) for path in found if is_name(path.stem))
    return dict(sorted(entries.items()))


def locate(kind: str, name: str) -> Path:
    """The file or folder that ``name`` means: a known name, else a path (it has a separator or a suffix).

    Raises ConfigError with the known names. A bare name never leaves the folders of its kind.
    """
    entries = available(kind)
    if name in entries:
        return entries[name]
    path = Path(name)
    if name and not is_name(name) and os.path.exists(path):  # noqa: PTH110 (a name can be too long for Path)
        return path
    raise ConfigError(
        f"no {_KINDS[kind]} {name!r}; {did_you_mean(name, entries)}; "
        "or give a path such as ./name.yaml, or put your own under $QUADNAS_HOME/" + kind
    )


def own_home() -> Path:
    """The folder of the user's own files: $QUADNAS_HOME, or ~/.quadnas."""
    home = os.environ.get("QUADNAS_HOME")
    return Path(home or os.path.expanduser("~/.quadnas"))  # noqa: PTH111 (Path raises where there is no home)


def own_entry(kind: str, name: str) -> Path:
    """Where the user's own entry ``name`` of a kind belongs; raises ConfigError if it cannot be a name."""
    if not is_name(name):
        raise ConfigError(f"{name[:80]!r} cannot name a {_KINDS[kind]}: use letters, digits, - and _")
    return own_home() / kind / name
