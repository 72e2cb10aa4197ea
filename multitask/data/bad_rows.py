"""Rows that can't be used: each is named by place, column and value, and bad_rows says what becomes of it."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from multitask.settings.checks import shown

__all__ = ["ON_BAD", "BadRow", "BadRows", "OnBad"]

OnBad = Literal["missing", "error", "skip"]
ON_BAD = ("missing", "error", "skip")


@dataclass(frozen=True)
class BadRow:
    """A row that can't be used; ``str`` of it is one sentence.

    :param path: its file, or what its rows in memory are called.
    :param column: "" if the row as a whole is at fault.
    :param value: what the column, or the row, holds.
    :param reason: what it must be: "must not be empty".
    :param missing: its text or label is missing, rather than wrong.
    """

    path: str
    line: int
    column: str
    value: Any
    reason: str
    in_memory: bool = False
    missing: bool = False

    def __str__(self) -> str:
        # repr also makes control characters, surrogates and line breaks harmless for a terminal.
        value = shown(self.value)
        what = f"column {self.column!r}" if self.column else "the row"
        where = f"{self.path}, row {self.line}" if self.in_memory else f"{self.path}:{self.line}"
        return f"{where}: {what} {self.reason}, got {value}"


class BadRows(Protocol):
    """Takes the rows that are left out: a list does, or what only counts them."""

    def append(self, row: BadRow, /) -> None:
        """Take one row."""
