"""A row of a file, or in memory, before any check; what may be wrong with it; where it comes from."""

from pathlib import Path
from typing import IO, Any, NamedTuple

__all__ = ["Fault", "Line", "Row", "Source", "source_name"]

Source = str | Path | IO[str] | IO[bytes]
Line = tuple[int, str]


class Fault(NamedTuple):
    """What is wrong with a row.

    :param column: "" if the fault is the row's as a whole.
    :param value: what the column, or the row, holds.
    :param reason: what it must be, as the middle of a sentence: "must not be blank"; the value follows.
    :param missing: the text or label is missing, rather than wrong.
    """

    column: str
    value: Any
    reason: str
    missing: bool = False


class Row(NamedTuple):
    """A row before any check.

    :param line: its first line's number in the file, from 1.
    :param cells: the required cells, then the optional one; None for a cell that is missing.
    :param fault: why it has no cells.
    :param plain: whether it is a line of plain text, in which "None" and "null" are text too.
    """

    line: int
    cells: tuple[Any, ...]
    fault: Fault | None = None
    plain: bool = False


def source_name(source: Source) -> str:
    """Return the name of a file or stream for messages."""
    if isinstance(source, str | Path):
        return str(source)
    return str(getattr(source, "name", "<stream>"))
