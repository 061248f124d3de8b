"""Optional packages: imported where they are needed; where one is missing, the error says how to get it."""

from importlib import import_module
from typing import Any

from quadnas.errors import MachineError


def optional(module: str, extra: str) -> Any:
    """The module of an optional package; raises MachineError naming the ``extra`` that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MachineError(
            f'{error}: this needs an optional package, install it with pip install "quadnas[{extra}]"'
        ) from None
