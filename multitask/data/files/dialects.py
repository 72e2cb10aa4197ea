"""How a file is written, found by looking at all of it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from multitask.data.files.cells import cell_rows
from multitask.data.files.dialect import Dialect, Wanted
from multitask.data.files.first_bytes import opened
from multitask.data.files.first_line import is_table_by_name, names_columns, separators_of, told_by_first_line
from multitask.data.files.json_rows import refuse_one_object
from multitask.data.files.lines import encoding_of, numbered_lines, refuse_utf_8
from multitask.data.files.looking import decimal_of, first_row_names_columns, separator_and_quoting
from multitask.data.files.plain_text import FOLLOWING
from multitask.data.files.rows import Line
from multitask.errors import DataError
from multitask.settings.checks import shown
from multitask.settings.format import Format

__all__ = ["Dialect", "Wanted", "look_at"]


def look_at(path: str | Path, format: Format | None = None, wanted: Wanted | None = None) -> Dialect:
    """Find how a file is written, in constant memory; what ``format`` says is not looked for.

    :param wanted: its columns; without any none is missed, as before they are known.
    :raises DataError: for a file that can't be read, is of no known kind, lacks a column, or can be read in two ways.
    """
    name, format, wanted = str(path), format or Format(), wanted or Wanted()
    with opened(path) as file:
        if file.what != "text":
            header = file.what == "parquet" or format.header is not False
            return Dialect(file.what, header=header, encoding="", compression=file.compression, sheet=format.sheet)
        encoding = encoding_of(name, file.stream.read(4), format)
        if format.encoding is not None:
            file.stream.seek(0)
            refuse_utf_8(name, file.stream, encoding, format)

        def lines() -> Iterator[Line]:
            file.stream.seek(0)
            return numbered_lines(name, file.stream, encoding, format)

        ahead = list(islice((line for line in lines() if line[1].strip()), 1 + FOLLOWING))
        first = ahead[0] if ahead else None
        found = told_by_first_line(name, first, lambda: [line for _, line in ahead[1:]], format, wanted)
        if found.what == "jsonl":
            refuse_one_object(name, [line for _, line in ahead], wanted)
        if found.what == "csv" and first is not None:
            found = _by_all_of_it(name, lines, first[1], found, format, wanted)
        return replace(found, encoding=encoding, compression=file.compression)


def _by_all_of_it(
    name: str, lines: Callable[[], Iterator[Line]], first: str, found: Dialect, format: Format, wanted: Wanted
) -> Dialect:
    """Add what only the whole table tells."""
    named = names_columns(first, format, wanted)
    separators = separators_of(first, format, wanted) or [found.separator]
    plain_names = '"' not in first or not named or set(wanted.required) <= set(first.split(separators[0]))
    separator, quoting, trailing, share = separator_and_quoting(
        name, lines, separators[:1] if named else separators, format, named=named, plain_names=plain_names
    )
    if not wanted.required and share < 0.5 and not is_table_by_name(name):
        return Dialect("plain")
    header = format.header
    if header is None:
        rows = (row for row in cell_rows(lines(), separator, quoting) if row.text.strip())
        header = True if named or trailing else first_row_names_columns(rows)
    if header is None and wanted.required:
        raise DataError(
            f"{name}: {format.key}.header must be true or false: the first row may name the columns, or be like those"
            f" below, got {shown(first)}"
        )
    found = replace(found, separator=separator, quoting=quoting, trailing=trailing, header=header is not False)
    if format.decimal is not None or not wanted.numbers or wanted.label is None:
        return found
    place = wanted.place(wanted.label, found.names(first) if found.header else [])
    cells = (
        (row.line, row.cells[place])
        for row in islice(cell_rows(lines(), separator, quoting), int(found.header), None)
        if isinstance(row.cells, list) and place < len(row.cells)
    )
    return replace(found, decimal=decimal_of(name, cells, wanted.label, format))
