"""Lines to rows of cells, the way of CSV (RFC 4180) or without quoting.

Not by a library. The csv module limits the length of a field by a global (a line of a megabyte is an error), reads
`"a" b` as `a b`, and lets an open quote swallow the rest of the file; pandas and pyarrow fill up short rows or stop at
the first that is too long, and name no line. Here a misplaced quote is a fault of its own line, and reading goes on.
"""

import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from multitask.data.files.rows import Line

__all__ = ["CellRow", "cell_rows", "split", "split_or_none"]

# One quoted field. Possessive (*+): a field that is not closed must fail at once, without backtracking.
QUOTED = re.compile(r'"[^"]*+(?:""[^"]*+)*+"')
# A quote that nobody closed must not swallow the rest of a large file.
MAX_LINES_PER_ROW = 1000


class CellRow(NamedTuple):
    """The cells of a row, or a str that says what is wrong with them.

    :param line: its first line's number.
    :param text: its first line.
    :param more: the lines that it goes on over.
    """

    line: int
    text: str
    cells: list[str] | str
    more: tuple[str, ...] = ()


def cell_rows(lines: Iterator[Line], separator: str, quoting: str) -> Iterator[CellRow]:
    """Yield the rows of all lines that are not empty, the header's among them.

    :param quoting: "double" or "none".
    """
    waiting: deque[Line] = deque()
    while True:
        current = waiting.popleft() if waiting else next(lines, None)
        if current is None:
            return
        number, line = current
        if not line:
            continue
        cells = split(line, separator, quoting)
        if cells is not None:
            yield CellRow(number, line, cells)
        else:
            yield _continued(number, line, separator, lines, waiting)


def split(line: str, separator: str, quoting: str = "double") -> list[str] | str | None:
    """Return the fields of a line; a str that says what is wrong with them; or None if a quote is still open."""
    if '"' not in line or quoting == "none":
        return line.split(separator)
    cells = []
    start = 0
    while True:
        if line.startswith('"', start):
            field = QUOTED.match(line, start)
            if field is None:
                return None
            end = field.end()
            if end < len(line) and line[end] != separator:
                return "must have no text after a closing quote (a quote inside a quoted field is written twice)"
            cells.append(line[start + 1 : end - 1].replace('""', '"'))
        else:
            end = line.find(separator, start)
            if end < 0:
                end = len(line)
            cells.append(line[start:end])
        if end == len(line):
            return cells
        start = end + 1


def split_or_none(line: str, separator: str) -> list[str] | None:
    """Return the fields of a line, or None if a quote is misplaced or still open."""
    cells = split(line, separator)
    return cells if isinstance(cells, list) else None


def _continued(number: int, line: str, separator: str, lines: Iterator[Line], waiting: deque[Line]) -> CellRow:
    """Return a row that goes on over the next lines; they are put back if it never ends.

    :param waiting: lines that were put back, to be read before ``lines``.
    """
    taken: list[Line] = []
    while len(taken) < MAX_LINES_PER_ROW:
        following = waiting.popleft() if waiting else next(lines, None)
        if following is None:
            break
        taken.append(following)
        if '"' not in following[1]:
            continue
        more = tuple(text for _, text in taken)
        cells = split("\n".join([line, *more]), separator)
        if isinstance(cells, list):
            return CellRow(number, line, cells, more)
        if cells is not None:
            break
    waiting.extendleft(reversed(taken))
    return CellRow(number, line, "must close each quote")
