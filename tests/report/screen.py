"""A terminal that shows what was written to it, and reflows its lines when it gets narrower or wider."""

import io
import os
import re

from rich.cells import cell_len

_PART = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\n|\r|[^\x1b\n\r]+")


class Screen(io.StringIO):
    """As ``sys.stderr`` on a terminal ``width`` columns wide, and high enough for everything."""

    def __init__(self, width: int = 80) -> None:
        super().__init__()
        self._width = width
        self.rows = [""]
        self.continued = [False]
        self.row = self.column = 0
        self.writes: list[str] = []

    def isatty(self) -> bool:
        return True

    def size(self, _descriptor: int = 0) -> os.terminal_size:
        """What ``os.get_terminal_size`` says of it."""
        return os.terminal_size((self._width, 40))

    def resize(self, width: int) -> None:
        """Join rows that were broken, break those that are too long; the cursor stays at the end of the last."""
        assert not any(self.rows[self.row + 1 :])
        del self.rows[self.row + 1 :], self.continued[self.row + 1 :]
        joined: list[str] = []
        for row, continued in zip(self.rows, self.continued, strict=True):
            if continued:
                joined[-1] += row
            else:
                joined.append(row)
        self._width, self.rows, self.continued = width, [], []
        for line in joined:
            starts = range(0, max(len(line), 1), width)
            self.rows += [line[start : start + width] for start in starts]
            self.continued += [start > 0 for start in starts]
        self.row, self.column = len(self.rows) - 1, len(self.rows[-1])

    def write(self, text: str) -> int:
        self.writes.append(text)
        end = 0
        for part in _PART.finditer(text):
            assert part.start() == end, repr(text[end : part.start()])
            end = part.end()
            self._show(part[0], part[1], part[2])
        assert end == len(text)
        return len(text)

    def _show(self, part: str, argument: str | None, command: str | None) -> None:
        if part == "\n":
            self.row, self.column = self.row + 1, 0
            if self.row == len(self.rows):
                self.rows.append("")
                self.continued.append(False)
        elif part == "\r":
            self.column = 0
        elif command == "A":
            self.row -= int(argument or 1)
            assert self.row >= 0
        elif command == "K":
            assert argument == "2"
            self.rows[self.row], self.continued[self.row] = "", False
        elif command is None:
            assert self.column + cell_len(part) <= self._width, f"wider than the terminal: {part!r}"
            old = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = old[: self.column] + part + old[self.column + len(part) :]
            self.column += len(part)
        else:
            assert command in "mhl"

    @property
    def lines(self) -> list[str]:
        """What stands there, without trailing spaces and empty rows at the end."""
        return "\n".join(row.rstrip() for row in self.rows).rstrip().split("\n")
