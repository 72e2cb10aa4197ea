"""The columns of a file of any kind and a sample of its rows, before anyone has said which of them matter."""

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from multitask.data.bad_rows import BadRow
from multitask.data.files.cells import split
from multitask.data.files.dialects import Dialect, look_at
from multitask.data.files.first_bytes import opened
from multitask.data.files.formats import is_pipe, read_rows
from multitask.data.files.lines import numbered_lines
from multitask.data.files.tables import names_of_table
from multitask.errors import DataError
from multitask.settings.checks import listed, shown
from multitask.settings.format import Format

__all__ = ["Peeked", "peek"]

# Rows that are looked at to tell what a column is, drawn from all of the file: its first rows may have one label.
SAMPLE = 5000
# Objects whose keys are the columns of a JSON file.
OBJECTS = 200


@dataclass(frozen=True)
class Peeked:
    """What is in a file.

    :param columns: their names that are unique, in the file's order; numbers from 1 without a header.
    :param cells: by column those of the sampled rows; None for a missing one.
    :param rows: of the file, those with a fault among them.
    :param bad: these.
    :param repeated: names that several columns have, which can't be read by name.
    """

    dialect: Dialect
    columns: list[str]
    cells: dict[str, list[Any]] = field(default_factory=dict)
    rows: int = 0
    bad: list[BadRow] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)


def peek(path: str | Path, format: Format) -> Peeked:
    """Find a file's columns, and draw a sample of its rows.

    :raises DataError: for a file that can't be read, or is no table.
    """
    if is_pipe(path):
        raise DataError(f"{path} must be a file, which is read several times, but is a pipe")
    dialect = look_at(path, format)
    if dialect.what == "plain":
        dialect = _single_column(path, dialect, format)
    names = _names(path, dialect, format)
    columns = [name for name in names if names.count(name) == 1]
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated and not columns:
        raise DataError(
            f"{path} must have columns of different names, got {listed(map(shown, repeated))} several times"
        )
    generator, count = random.Random(0), 0
    sample: list[tuple[Any, ...]] = []
    bad: list[BadRow] = []
    for row in read_rows(path, columns, None, format=format, dialect=dialect):
        count += 1
        if row.fault is not None:
            bad.append(BadRow(str(path), row.line, row.fault.column, row.fault.value, row.fault.reason))
            continue
        if len(sample) < SAMPLE:
            sample.append(row.cells)
        elif (place := generator.randrange(count)) < SAMPLE:
            sample[place] = row.cells
    if not columns:
        raise DataError(str(bad[0]) if bad else f"{path} must have columns, got none")
    cells = {name: [row[at] for row in sample] for at, name in enumerate(columns)}
    return Peeked(dialect, columns, cells, count, bad, repeated)


def _single_column(path: str | Path, dialect: Dialect, format: Format) -> Dialect:
    """Return the dialect of a text that was not taken for a table: a tab alone may separate its cells."""
    with opened(path) as file:
        lines = [line for _, line in numbered_lines(str(path), file.stream, dialect.encoding, format) if line.strip()]
    widths = Counter(len(line.split("\t")) for line in lines)
    if len(widths) != 1 or 1 in widths:
        raise DataError(f"{path} must be a table with columns, got plain text, one text a line, without labels")
    return replace(dialect, what="csv", separator="\t", quoting="none", header=False)


def _names(path: str | Path, dialect: Dialect, format: Format) -> list[str]:
    with opened(path) as file:
        if file.what != "text":
            return names_of_table(str(path), file.stream, file.what, format)
        lines = (line for _, line in numbered_lines(str(path), file.stream, dialect.encoding, format) if line.strip())
        if dialect.what == "csv":
            first = next(lines, "")
            if dialect.header:
                return dialect.names(first)
            cells = split(first, dialect.separator, dialect.quoting)
            return [str(number) for number in range(1, len(cells or "x") + 1)]
        objects = _objects(lines) if dialect.what == "jsonl" else _array("\n".join(lines))
        return list(dict.fromkeys(key for each in islice(objects, OBJECTS) if isinstance(each, dict) for key in each))


def _objects(lines: Iterable[str]) -> Iterable[Any]:
    for line in lines:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):  # of a row's own, which reading names
            yield None


def _array(text: str) -> Sequence[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # reading says where
        return []
    return found if isinstance(found, list) else []
