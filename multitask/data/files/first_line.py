"""How a file is written, as far as its first line tells: of a pipe that is all there is to look at."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from multitask.data.files.cells import split, split_or_none
from multitask.data.files.dialect import Dialect, Wanted
from multitask.data.files.lines import undecoded
from multitask.data.files.plain_text import looks_like_header, looks_like_json
from multitask.data.files.rows import Line
from multitask.errors import DataError
from multitask.settings.checks import listed, shown
from multitask.settings.format import Format

__all__ = ["is_table_by_name", "names_columns", "separators_of", "told_by_first_line"]

JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
# Some programs write this above a table, so that Excel knows its separator.
EXCELS_SEPARATOR = re.compile(r'"?sep=.{0,2}', re.IGNORECASE)
TABLE_ENDINGS = (".csv", ".tsv")


def _ending(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


def is_table_by_name(name: str) -> bool:
    """Return whether a file's name says that it is a table."""
    return _ending(name) in TABLE_ENDINGS


def told_by_first_line(
    name: str, first: Line | None, following: Callable[[], Sequence[str]], format: Format, wanted: Wanted
) -> Dialect:
    """Find how a file is written by its first line that is not blank.

    :param following: returns the next lines; called only where they decide, since a pipe may not have them yet.
    :raises DataError: for a file without rows, or one that lacks a column.
    """
    may_be_plain = wanted.plain > 0 and not is_table_by_name(name)
    if first is None:
        if may_be_plain:
            return Dialect("plain")
        raise DataError(f"{name} must have rows, got none")
    number, line = first
    if EXCELS_SEPARATOR.fullmatch(line):
        raise DataError(
            f"{name}:{number}: {shown(line)} is a word to Excel and no row: delete the line, and the separator is found"
            " by looking"
        )
    if "\0" in line and not wanted.required:
        raise DataError(
            f"{name}:{number}: the first row must not contain NUL characters, got {shown(line)}"
            f"{_hint(line, format, wanted)}, such as utf-16-le"
        )
    if _ending(name) in JSON_ENDINGS or (not is_table_by_name(name) and looks_like_json(line)):
        return Dialect("json" if line.lstrip().startswith("[") else "jsonl")
    if format.header is False and wanted.required and not wanted.by_number:
        raise DataError(
            f"{name}: the columns must be numbers, since {format.key}.header is false, got"
            f" {', '.join(map(shown, wanted.required))}"
        )
    like_plain = may_be_plain and line.count("\t") == wanted.plain - 1
    by_number = wanted.by_number and not names_columns(line, format, wanted)
    if by_number and like_plain and format.header is None and format.separator is None:
        _refuse_doubtful(name, first, following, format, wanted)
        return Dialect("plain")
    separators = separators_of(line, format, wanted)
    if separators:
        bad = undecoded(line, format)
        if bad is not None and not by_number:
            raise DataError(f"{name}:{number}: the header {bad.reason}, got {shown(line)}")
        quoting = format.quoting or "double"
        return Dialect("csv", separators[0], quoting, format.decimal or ".", header=format.header is not False)
    if not wanted.required:
        return Dialect("csv", "\t", "double") if is_table_by_name(name) else Dialect("plain")
    hint = ""
    if like_plain:
        columns = [*wanted.required, *([wanted.optional] if wanted.optional is not None else [])]
        if not looks_like_header(line, following, columns, split_or_none):
            return Dialect("plain")
        hint = f" (if that is plain text, put the line {shown(chr(9).join(wanted.required))} above it)"
    names = _names(line, _likely(line, format), format)[0]
    there = {*names, *(map(str, range(1, len(names) + 1)) if by_number else ())}
    missing = [column for column in wanted.required if column not in there]
    raise DataError(
        f"{name}:{number}: the columns must include {listed(map(shown, missing))}, "
        f"got {listed(map(shown, names))}{hint or _hint(line, format, wanted)}"
    )


def names_columns(line: str, format: Format, wanted: Wanted) -> bool:
    """Return whether a file's first line names the columns that are wanted."""
    separators = format.separator or Dialect.SEPARATORS
    return bool(wanted.required) and any(_has(line, separator, format, wanted) for separator in separators)


def separators_of(line: str, format: Format, wanted: Wanted) -> list[str]:
    """Return the separators at which a first line has the columns that are wanted, the most cells first."""
    separators = list(format.separator or Dialect.SEPARATORS)
    width = {separator: len(_names(line, separator, format)[0]) for separator in separators}
    if not wanted.required:
        found = [separator for separator in separators if width[separator] > 1]
    elif wanted.by_number and not names_columns(line, format, wanted):
        found = [separator for separator in separators if width[separator] >= max(map(int, wanted.required))]
    else:
        found = [separator for separator in separators if _has(line, separator, format, wanted)]
    return sorted(found, key=lambda separator: -width[separator])


def _has(line: str, separator: str, format: Format, wanted: Wanted) -> bool:
    return any(set(wanted.required) <= set(names) for names in _names(line, separator, format))


def _names(line: str, separator: str, format: Format) -> list[list[str]]:
    """Return the cells of the first row, with quoting and without, as far as the settings leave that open."""
    readings = [split(line, separator, quoting) for quoting in ("double", "none") if format.quoting in (None, quoting)]
    return [[cell.strip() for cell in cells] for cells in readings if isinstance(cells, list)] or [[line]]


def _likely(line: str, format: Format) -> str:
    separators = format.separator or Dialect.SEPARATORS
    return next((separator for separator in separators if separator in line), next(iter(separators)))


def _refuse_doubtful(
    name: str, first: Line, following: Callable[[], Sequence[str]], format: Format, wanted: Wanted
) -> None:
    """Raise DataError for what is like plain text and like a table without a header, too."""
    for separator in separators_of(first[1], format, wanted):
        width = len(_names(first[1], separator, format)[0])
        if width > 1 and all(len(_names(line, separator, format)[0]) == width for line in following()):
            raise DataError(
                f"{name}:{first[0]}: {format.key}.header must be set, or {format.key}.separator: this may be plain text"
                f" or a table without a header, got {shown(first[1])}"
            )


def _hint(line: str, format: Format, wanted: Wanted) -> str:
    if undecoded(line, format) is not None or "\0" in line:
        return f"; {format.key}.encoding may have to name the file's encoding"
    if format.separator is not None and format.separator not in line:
        return f"; {format.key}.separator is {shown(format.separator)}"
    return ""
