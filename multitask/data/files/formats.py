"""The rows of a file, whichever way it is written (see dialects.py), or of an open stream, with their lines."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from multitask.data.files.cells import CellRow, cell_rows
from multitask.data.files.dialects import Dialect, Wanted, look_at
from multitask.data.files.first_bytes import opened, opened_stream
from multitask.data.files.first_line import told_by_first_line
from multitask.data.files.json_rows import array_rows, object_rows
from multitask.data.files.lines import encoding_of, numbered_lines, undecoded
from multitask.data.files.looking import COMMA_NUMBER
from multitask.data.files.plain_text import FOLLOWING
from multitask.data.files.rows import Fault, Line, Row, Source, source_name
from multitask.errors import DataError
from multitask.settings.checks import shown
from multitask.settings.format import Format
from multitask.settings.kinds import parse_number

__all__ = ["Fault", "Row", "Source", "is_pipe", "read_rows", "source_name"]


def read_rows(
    source: Source,
    required: Sequence[str],
    optional: str | None = None,
    *,
    plain: int = 0,
    label: str | None = None,
    numbers: bool = False,
    format: Format | None = None,
    dialect: Dialect | None = None,
) -> Iterator[Row]:
    """Yield the rows of a file or of an open stream (text or bytes), in constant memory; of a JSON array not quite.

    :param required: these and the next four are dialect.Wanted's.
    :param format: what is known of how the file is written.
    :param dialect: all that, as look_at found it; left out, a file is looked at. A stream can't be read twice: what
        its first line does not tell has to be in ``format``, or is as in CSV.
    :raises DataError: for a file that can't be read or lacks a column; faults of single rows are left in the rows.
    """
    name, format = source_name(source), format or Format()
    wanted = Wanted(required, optional, plain, label, numbers)
    if not isinstance(source, str | Path):
        # The bytes below a text stream, if any, so that an error about what is not UTF-8 can name its line.
        yield from _stream_rows(name, getattr(source, "buffer", source), format, wanted)
    elif is_pipe(source):
        with open(source, "rb") as stream:
            yield from _stream_rows(name, stream, format, wanted)
    else:
        dialect = dialect or look_at(source, format, wanted)
        with opened(source) as file:
            if file.what == "text":
                lines = numbered_lines(name, file.stream, dialect.encoding, format)
                yield from _rows(name, lines, dialect, format, wanted)
            else:
                from multitask.data.files.tables import excel_rows, parquet_rows

                read = parquet_rows if file.what == "parquet" else excel_rows
                yield from read(name, file.stream, format, wanted)


def is_pipe(path: str | Path) -> bool:
    """Return whether what has a file's name can be read only once."""
    return Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir()


def _stream_rows(name: str, stream: IO[Any], format: Format, wanted: Wanted) -> Iterator[Row]:
    stream, first_bytes, compression = opened_stream(name, stream)
    encoding = encoding_of(name, first_bytes, format)
    lines = numbered_lines(name, stream, encoding, format)
    before: list[Line] = []
    first: Line | None = None
    for line in lines:
        before.append(line)
        if line[1].strip():
            first = line
            break

    def following() -> list[str]:
        before.extend(islice(lines, FOLLOWING))
        return [line for number, line in before if first is not None and number > first[0] and line.strip()]

    dialect = told_by_first_line(name, first, following, format, wanted)
    if dialect.what == "csv" and format.header is None and first is not None:
        names = dialect.names(first[1])
        if not set(wanted.required) <= set(names):
            raise DataError(
                f"{name}: {format.key}.header must be true or false to read columns by number from a stream, which"
                f" can't be looked at twice, got {shown(first[1])}"
            )
    yield from _rows(name, chain(before, lines), dialect, format, wanted)


def _rows(name: str, lines: Iterator[Line], dialect: Dialect, format: Format, wanted: Wanted) -> Iterator[Row]:
    if dialect.what == "jsonl":
        return object_rows(name, lines, format, wanted)
    if dialect.what == "json":
        return array_rows(name, lines, format, wanted)
    return (_plain_rows if dialect.what == "plain" else _table_rows)(name, lines, dialect, format, wanted)


def _plain_rows(name: str, lines: Iterable[Line], dialect: Dialect, format: Format, wanted: Wanted) -> Iterator[Row]:
    """Yield one row a line. Blank lines are rows without text, except at the end, where they are none."""
    blank: list[int] = []
    padding = (None,) * (len(wanted.required) - wanted.plain + 1)
    for number, line in lines:
        if not line.strip():
            blank.append(number)
            continue
        for before in blank:
            yield Row(before, (), Fault("", "", "must not be blank", missing=True), plain=True)
        blank.clear()
        cells = line.split("\t")
        fault = undecoded(line, format)
        if len(cells) != wanted.plain:
            fault = Fault("", line, f"must have {wanted.plain} texts with tabs between them, not {len(cells)}")
        yield Row(number, () if fault else (*cells, *padding), fault, plain=True)


def _table_rows(name: str, lines: Iterable[Line], dialect: Dialect, format: Format, wanted: Wanted) -> Iterator[Row]:
    lines = iter(lines)
    first = next(line for line in lines if line[1].strip())
    names = dialect.names(first[1])
    width = len(names)
    header = names if dialect.header else []
    if not dialect.header:
        lines = chain([first], lines)
    columns = [*wanted.required]
    if wanted.optional is not None and (wanted.optional in header or _counts_columns(wanted.optional, width)):
        columns.append(wanted.optional)
    twice = [column for column in columns if header.count(column) > 1]
    if twice:
        raise DataError(f"{name}:{first[0]}: the header must not repeat a column, got {shown(twice[0])} twice")
    places = [wanted.place(column, header) for column in columns]
    rest = () if len(columns) > len(wanted.required) else (None,)
    comma = wanted.required.index(wanted.label) if wanted.numbers and wanted.label and dialect.decimal == "," else None
    for row in cell_rows(lines, dialect.separator, dialect.quoting):
        cells = row.cells
        faults = (undecoded(line, format) for line in (row.text, *row.more))
        further, fault = next(((at, each) for at, each in enumerate(faults) if each), (0, None))
        if isinstance(cells, str):
            fault = fault or Fault("", row.text, cells)
        elif dialect.trailing and len(cells) == width + 1 and not cells[-1].strip():
            pass
        elif len(cells) != width or dialect.trailing:
            due = f"{width} fields like the header" if dialect.header else f"{width} fields like the first row"
            fault = fault or Fault("", row.text, f"must have {due}, not {len(cells)}")
        elif fault is not None:
            fault = _in_column(fault, row, header, format)
        if fault is not None:
            yield Row(row.line + further, (), fault)
            continue
        found = [cells[place] for place in places]
        if comma is not None:
            text = found[comma].strip()
            if "." in text and parse_number(text) is not None:
                reason = "must be a number with a decimal comma, as the others are"
                yield Row(row.line, (), Fault(columns[comma], found[comma], reason))
                continue
            found[comma] = text.replace(",", ".") if COMMA_NUMBER.fullmatch(text) else found[comma]
        yield Row(row.line, (*found, *rest))


def _counts_columns(column: str, width: int) -> bool:
    return column.isdecimal() and 1 <= int(column) <= width


def _in_column(fault: Fault, row: CellRow, header: Sequence[str], format: Format) -> Fault:
    """Return the fault of a row with the column that it is in."""
    place = next((place for place, cell in enumerate(row.cells) if undecoded(cell, format)), 0)
    return fault._replace(column=header[place] if place < len(header) else str(place + 1), value=row.cells[place])
