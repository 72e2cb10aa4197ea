"""Rows of JSON: an object a line, or one array of objects over any number of lines."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from multitask.data.files.dialect import Wanted
from multitask.data.files.lines import undecoded
from multitask.data.files.rows import Fault, Line, Row
from multitask.errors import DataError
from multitask.settings.checks import listed, shown
from multitask.settings.format import Format

__all__ = ["array_rows", "object_rows", "refuse_one_object"]

BLANK = re.compile(r"[ \t\n\r]*")


def object_rows(name: str, lines: Iterable[Line], format: Format, wanted: Wanted) -> Iterator[Row]:
    """Yield a row for each line that is not blank."""
    first = True
    for number, line in lines:
        if not line.strip():
            continue
        fault = undecoded(line, format)
        if fault is not None:
            yield Row(number, (), fault)
            continue
        value = _parse(line)
        if first and wanted.plain:
            _check_object(name, number, value, wanted)
        first = False
        if isinstance(value, dict):
            yield _row(number, value, wanted)
        else:
            yield Row(number, (), Fault("", line, "must be a JSON object on one line"))


def refuse_one_object(name: str, lines: Sequence[str], wanted: Wanted) -> None:
    """Raise DataError for a file that is one object around all rows, as pandas' ``to_json`` writes unless told.

    :param lines: its first lines that are not blank.
    """
    value = _parse(lines[0]) if len(lines) == 1 else {} if lines and lines[0].strip() == "{" else None
    if not isinstance(value, dict):
        return
    holds_rows = any(isinstance(cell, dict | list) for cell in value.values()) or not value
    cells = [value.get(column) for column in wanted.required or value]
    if holds_rows and all(cell is None or isinstance(cell, dict | list) for cell in cells):
        keys = f" with the keys {listed(map(shown, value))}" if value else " over several lines"
        raise DataError(
            f"{name} must be JSON lines or a JSON array of objects, a row each (pandas: to_json(orient='records')), got"
            f" one object{keys}"
        )


def array_rows(name: str, lines: Iterable[Line], format: Format, wanted: Wanted) -> Iterator[Row]:
    """Yield a row for each item of an array, with the line that it begins on; all of the file is read first.

    :raises DataError: for what is no array, by line.
    """
    rows: list[str] = []
    for number, content in lines:
        fault = undecoded(content, format)
        if fault is not None:
            raise DataError(f"{name}:{number}: the line {fault.reason}, got {shown(content)}")
        rows.append(content)
    text = "\n".join(rows)
    decoder = json.JSONDecoder()
    at, line, counted = _skip(text, 0) + 1, 1, 0
    at = _skip(text, at)
    first = True
    while not (first and text.startswith("]", at)):
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise _no_array(name, text, getattr(error, "pos", at), str(getattr(error, "msg", error))) from None
        if first and wanted.plain:
            _check_object(name, line, value, wanted)
        first = False
        if isinstance(value, dict):
            yield _row(line, value, wanted)
        else:
            yield Row(line, (), Fault("", value, "must be a JSON object"))
        at = _skip(text, at)
        if text.startswith("]", at):
            break
        if not text.startswith(",", at):
            raise _no_array(name, text, at, "Expecting ',' or ']'")
        at = _skip(text, at + 1)
    end = _skip(text, at + 1)
    if end < len(text):
        raise _no_array(name, text, end, "Text after the array's end")


def _skip(text: str, at: int) -> int:
    match = BLANK.match(text, at)
    return at if match is None else match.end()


def _no_array(name: str, text: str, at: int, reason: str) -> DataError:
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return DataError(f"{name}:{line}: must be a JSON array of objects ({reason}, at column {column} of the line)")


def _row(number: int, value: dict[str, Any], wanted: Wanted) -> Row:
    cells = tuple(value.get(column) for column in wanted.required)
    return Row(number, (*cells, value.get(wanted.optional) if wanted.optional is not None else None))


def _check_object(name: str, number: int, value: Any, wanted: Wanted) -> None:
    """Raise DataError if the first object has none of the columns: the file then has other names for them."""
    if isinstance(value, dict) and not any(column in value for column in wanted.required):
        raise DataError(
            f"{name}:{number}: the object's keys must include {', '.join(map(shown, wanted.required))}, "
            f"got {listed(map(shown, value))}"
        )


def _parse(line: str) -> Any:
    """Return the value of a line, or None if it is not JSON (a line that is ``null`` is no row either)."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
