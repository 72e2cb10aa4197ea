"""Lines of a file as rows of cells: CSV, TSV, JSON lines or plain text, each row with its line number.

Not by the csv module, which limits the length of a field by a global (a line of a megabyte is an error), reads
`"a" b` as `a b`, and lets an open quote swallow the rest of the file. Here a misplaced quote is a fault of its own
line, and reading goes on with the next.
"""

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from multitask.data.plain_text import FOLLOWING, looks_like_header, looks_like_json
from multitask.errors import DataError
from multitask.settings.checks import shown

__all__ = ["Fault", "Row", "Source", "read_rows", "source_name"]

Source = str | Path | IO[str] | IO[bytes]
Line = tuple[int, str]

# One quoted field. Possessive (*+): a field that is not closed must fail at once, without backtracking.
QUOTED = re.compile(r'"[^"]*+(?:""[^"]*+)*+"')
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
TABLE_ENDINGS = (".csv", ".tsv")
# A quote that nobody closed must not swallow the rest of a large file.
MAX_LINES_PER_ROW = 1000


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


def read_rows(source: Source, required: Sequence[str], optional: str | None, *, plain: int = 0) -> Iterator[Row]:
    """Yield the rows of a file or of an open stream (text or bytes), in constant memory.

    :param required: columns that the file must have.
    :param optional: a column that it may have.
    :param plain: if there is no header, take lines of this many texts with tabs between them; 0 for never. Files
        called .csv, .tsv or .jsonl are never plain, nor are those that plain_text.py takes for a table or JSON.
    :raises DataError: for a file that can't be read or lacks a column; faults of single rows are left in the rows.
    """
    name = source_name(source)
    if isinstance(source, str | Path):
        try:
            with open(source, "rb") as stream:
                yield from _rows(name, _lines(name, stream), required, optional, plain)
        except OSError as error:
            raise DataError(f"{name} can't be read: {error.strerror or error}") from error
    else:
        # The bytes below a text stream, if any, so that an error about what is not UTF-8 can name its line.
        yield from _rows(name, _lines(name, getattr(source, "buffer", source)), required, optional, plain)


def _lines(name: str, stream: Iterable[str | bytes]) -> Iterator[Line]:
    """Yield numbered lines without their ends. Bytes that are not UTF-8 become lone surrogates, for later checks."""
    for number, raw in enumerate(stream, 1):
        if number == 1 and isinstance(raw, bytes) and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{name} must be UTF-8, got UTF-16")
        line = raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw
        if number == 1:
            line = line.removeprefix("\ufeff")
            if "\r" in line.rstrip("\r\n"):
                raise DataError(f"{name} must end its lines with line feeds, got carriage returns alone")
        yield number, line.removesuffix("\n").removesuffix("\r")


def _rows(name: str, lines: Iterator[Line], required: Sequence[str], optional: str | None, plain: int) -> Iterator[Row]:
    ending = Path(name).suffix.lower()
    skipped: list[Line] = []
    first: Line | None = None
    for number, line in lines:
        if line.strip():
            first = number, line
            break
        skipped.append((number, line))
    if first is None:
        if plain and ending not in TABLE_ENDINGS:
            return
        raise DataError(f"{name} must have rows, got none")
    if ending in JSON_ENDINGS or (ending not in TABLE_ENDINGS and looks_like_json(first[1])):
        if plain:
            _check_object(name, *first, required)
        yield from _json_rows(_chain([first], lines), required, optional)
        return
    separator = "\t" if "\t" in first[1] or "," not in first[1] else ","
    split = _split(first[1], separator)
    header = [cell.strip() for cell in split] if isinstance(split, list) else [first[1]]
    missing = [column for column in required if column not in header]
    if not missing:
        yield from _table_rows(name, first[0], header, lines, separator, required, optional)
        return
    hint = ""
    if plain and ending not in TABLE_ENDINGS and first[1].count("\t") == plain - 1:
        ahead: list[Line] = []

        def following() -> list[str]:
            ahead.extend(islice(lines, FOLLOWING - len(ahead)))
            return [line for _, line in ahead if line.strip()]

        columns = [*required, *([optional] if optional is not None else [])]
        if not looks_like_header(first[1], following, columns, _cells):
            yield from _plain_rows(_chain([*skipped, first, *ahead], lines), plain, len(required))
            return
        hint = f" (if that is plain text, put the line {shown(chr(9).join(required))} above it)"
    raise DataError(
        f"{name}:{first[0]}: the columns must include {', '.join(map(shown, missing))}, "
        f"got {', '.join(map(shown, header[:20]))}{hint}"
    )


def _chain(first: Iterable[Line], rest: Iterator[Line]) -> Iterator[Line]:
    yield from first
    yield from rest


def _check_object(name: str, number: int, line: str, required: Sequence[str]) -> None:
    """Raise DataError if the first object has none of the columns: the file then has other names for them."""
    value = _parse_json(line)
    if isinstance(value, dict) and not any(column in value for column in required):
        raise DataError(
            f"{name}:{number}: the object's keys must include {', '.join(map(shown, required))}, "
            f"got {', '.join(map(shown, list(value)[:20])) or 'none'}"
        )


def _parse_json(line: str) -> Any:
    """Return the value of a line, or None if it is not JSON (a line that is ``null`` is no row either)."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _json_rows(lines: Iterator[Line], required: Sequence[str], optional: str | None) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        value = _parse_json(line)
        if isinstance(value, dict):
            cells = tuple(value.get(column) for column in required)
            yield Row(number, (*cells, value.get(optional) if optional is not None else None))
        else:
            yield Row(number, (), Fault("", line, "must be a JSON object on one line"))


def _plain_rows(lines: Iterator[Line], plain: int, width: int) -> Iterator[Row]:
    """Yield one row a line. Blank lines are rows without text, except at the end, where they are none."""
    blank: list[int] = []
    padding = (None,) * (width - plain + 1)
    for number, line in lines:
        if not line.strip():
            blank.append(number)
            continue
        for before in blank:
            yield Row(before, (), Fault("", "", "must not be blank", missing=True), plain=True)
        blank.clear()
        cells = line.split("\t")
        if len(cells) == plain:
            yield Row(number, (*cells, *padding), plain=True)
        else:
            yield Row(number, (), Fault("", line, f"must have {plain} texts with tabs between them, not {len(cells)}"))


def _table_rows(
    name: str,
    header_line: int,
    header: list[str],
    lines: Iterator[Line],
    separator: str,
    required: Sequence[str],
    optional: str | None,
) -> Iterator[Row]:
    wanted = [*required, *([optional] if optional in header else [])]
    twice = [column for column in wanted if header.count(str(column)) > 1]
    if twice:
        raise DataError(f"{name}:{header_line}: the header must not repeat a column, got {shown(twice[0])} twice")
    places = [header.index(str(column)) for column in wanted]
    rest = () if optional in header else (None,)
    width = len(header)
    waiting: deque[Line] = deque()
    while True:
        current = waiting.popleft() if waiting else next(lines, None)
        if current is None:
            return
        number, line = current
        if not line:
            continue
        cells = _split(line, separator)
        if cells is None:
            cells = _continued(line, separator, lines, waiting)
        if isinstance(cells, str):
            yield Row(number, (), Fault("", line, cells))
        elif len(cells) != width:
            yield Row(number, (), Fault("", line, f"must have {width} fields like the header, not {len(cells)}"))
        else:
            yield Row(number, (*(cells[place] for place in places), *rest))


def _split(line: str, separator: str) -> list[str] | str | None:
    """Return the fields of a line; a str that says what is wrong with them; or None if a quote is still open."""
    if '"' not in line:
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


def _cells(line: str, separator: str) -> list[str] | None:
    """Return the fields of a line, or None if a quote is misplaced or still open."""
    cells = _split(line, separator)
    return cells if isinstance(cells, list) else None


def _continued(line: str, separator: str, lines: Iterator[Line], waiting: deque[Line]) -> list[str] | str:
    """Return the fields of a row that goes on over the next lines; they are put back if it never ends.

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
        cells = _split("\n".join([line, *(text for _, text in taken)]), separator)
        if isinstance(cells, list):
            return cells
        if cells is not None:
            break
    waiting.extendleft(reversed(taken))
    return "must close each quote"
