"""What a candidate's label says: ``quadra-k7-e4`` is the family ``quadra`` with k = 7 and e = 4."""

import re
from dataclasses import dataclass

_ARGUMENT = re.compile(r"([A-Za-z])([0-9]+(?:\.[0-9]+)?)")


@dataclass(frozen=True, slots=True)
class Label:
    """A family and its numeric arguments by their letter; anything else stays part of the family."""

    family: str
    arguments: dict[str, float]

    @property
    def short(self) -> str:
        """The arguments alone, such as ``k7 e4``; empty if there are none."""
        return " ".join(f"{letter}{value:g}" for letter, value in self.arguments.items())

    @property
    def full(self) -> str:
        """Family and arguments, such as ``quadra k7 e4``."""
        return f"{self.family} {self.short}".rstrip()


def read_label(text: str) -> Label:
    """Split a label at its trailing ``-<letter><number>`` parts; a letter that stands twice ends them."""
    family, arguments = text, dict[str, float]()
    while True:
        head, _, tail = family.rpartition("-")
        match = _ARGUMENT.fullmatch(tail)
        if not (head and match) or match[1] in arguments:
            return Label(family, dict(reversed(arguments.items())))
        arguments[match[1]] = float(match[2])
        family = head


def printable(text: str) -> str:
    """The text without control characters, which could command a terminal; it keeps its line breaks."""
    return "".join(c if c == "\n" or c.isprintable() else "?" for c in text)
