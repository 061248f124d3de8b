"""Tables for LaTeX: plain commands and those of booktabs, every character of a text escaped."""

import re
from collections.abc import Sequence

_COMMANDS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",  # behind a line's end, [ and * would be its arguments
    "]": "{]}",
    "`": "{`}",  # or ?` and !` print Spanish marks
    "*": "{*}",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MICRO SIGN}": r"$\mu$",
    "\N{GREEK SMALL LETTER TAU}": r"$\tau$",
    **{character: f"\\{character}" for character in "{}$&#_%"},
}
_LAST_LETTER = "\u017f"  # of Latin Extended-A, which LaTeX reads as UTF-8 without a package


def escaped(text: str) -> str:
    """``text`` as LaTeX prints it, on one line; a character that plain LaTeX lacks becomes a question mark."""
    plain = "".join(_escaped(character) for character in " ".join(text.split()))
    plain = plain.replace("--", "-{}-").replace("--", "-{}-")  # or it prints a dash
    return re.sub(r"^-(?=[0-9])", "$-$", plain)


def _escaped(character: str) -> str:
    if character in _COMMANDS:
        return _COMMANDS[character]
    known = character.isascii() and character.isprintable()
    return character if known or (character.isalpha() and character <= _LAST_LETTER) else "?"


def tabular(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Escaped cells between booktabs' rules, the first column to the left, all others to the right."""
    head, *body = (" & ".join(line) + r" \\" for line in (titles, *lines))
    rules = [r"\begin{tabular}{l" + "r" * (len(titles) - 1) + "}", r"\toprule", head, r"\midrule"]
    return "\n".join([*rules, *body, r"\bottomrule", r"\end{tabular}"])


def floating(caption: str, content: str, notes: Sequence[str]) -> str:
    """A table environment with an escaped caption above and escaped notes below."""
    small = [r"\par\smallskip\footnotesize", "\n".join(f"{note}\\par" for note in notes)] if notes else []
    lines = [r"\begin{table}", r"\centering", f"\\caption{{{caption}}}", content, *small, r"\end{table}"]
    return "\n".join(lines) + "\n"
