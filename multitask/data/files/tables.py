"""Rows of parquet files and Excel sheets, by pyarrow and openpyxl: the extra ``minbert[tables]``.

Cells are tidied like those of rows in memory: numbers stay numbers, so one where a text is due is a fault of its row.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from types import ModuleType
from typing import IO, Any

from multitask.data.files.dialect import Wanted
from multitask.data.files.rows import Row
from multitask.data.memory import tidy_id, tidy_label, tidy_text
from multitask.errors import DataError
from multitask.settings.checks import listed, shown
from multitask.settings.format import Format

__all__ = ["excel_rows", "names_of_table", "parquet_rows", "sheet_of"]

# Rows that are in memory at a time.
BATCH = 4096


def parquet_rows(name: str, stream: IO[bytes], format: Format, wanted: Wanted) -> Iterator[Row]:
    """Yield the rows of a parquet file, numbered from 1.

    :raises DataError: for a file that is broken or lacks a column, and without pyarrow.
    """
    pyarrow, parquet = _needed("pyarrow", name, "a parquet file"), _needed("pyarrow.parquet", name, "a parquet file")
    try:
        file = parquet.ParquetFile(stream)
        names = file.schema_arrow.names
        columns, tidy = _columns(name, names, wanted)
        columns = [names[wanted.place(column, names)] for column in columns]
        number = 0
        for batch in file.iter_batches(batch_size=BATCH, columns=list(dict.fromkeys(columns))):
            cells = [_python_values(batch.column(column)) for column in columns]
            for row in zip(*cells, strict=True):
                number += 1
                yield Row(number, _tidied(row, tidy, wanted))
    except (pyarrow.ArrowException, OSError) as error:
        raise _broken(name, "a parquet file", error) from error


def _python_values(column: Any) -> list[Any]:
    """Return a column's values as Python's own; those of float32 stay numpy's, which are printed as they were meant."""
    values: list[Any] = column.to_pylist()
    if str(column.type) in ("float", "halffloat"):
        import numpy as np

        kind = np.float32 if str(column.type) == "float" else np.float16
        return [None if value is None else kind(value) for value in values]
    return values


def excel_rows(name: str, stream: IO[bytes], format: Format, wanted: Wanted) -> Iterator[Row]:
    """Yield the rows of a sheet that are not blank, with their numbers in the sheet.

    :raises DataError: for a file that is broken, lacks the sheet or a column, and without openpyxl.
    """
    with _sheet(name, stream, format, wanted) as (header, names, filled, hint):
        columns, tidy = _columns(name, names, wanted, hint)
        places = [wanted.place(column, header) for column in columns]
        number = 0
        for number, row in filled:
            cells = [row[place] if place < len(row) else None for place in places]
            yield Row(number, _tidied(cells, tidy, wanted))
        if not number and hint:
            raise DataError(f"{name} must have rows below its header, got none{hint}")


def names_of_table(name: str, stream: IO[bytes], what: str, format: Format) -> list[str]:
    """Return the names of the columns of a parquet file or a sheet; numbers from 1 without a header.

    :param what: "parquet" or "excel".
    :raises DataError: as the functions that read the rows.
    """
    if what == "parquet":
        pyarrow, parquet = (
            _needed("pyarrow", name, "a parquet file"),
            _needed("pyarrow.parquet", name, "a parquet file"),
        )
        try:
            return list(parquet.ParquetFile(stream).schema_arrow.names)
        except (pyarrow.ArrowException, OSError) as error:
            raise _broken(name, "a parquet file", error) from error
    with _sheet(name, stream, format, Wanted()) as (_, names, *_rest):
        return names


def sheet_of(name: str, stream: IO[bytes], format: Format) -> str:
    """Return the name of the sheet that is read of an Excel file; raises DataError as ``excel_rows``."""
    with _worksheet(name, stream, format) as (sheet, _):
        return str(sheet.title)


@contextmanager
def _worksheet(name: str, stream: IO[bytes], format: Format) -> Iterator[tuple[Any, str]]:
    """Open the sheet that the format names, or the first; also give the end of a message that misses something."""
    openpyxl = _needed("openpyxl", name, "an Excel file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and validations, which nobody reads here
        try:
            book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
        except Exception as error:  # of whichever part of a broken file
            raise _broken(name, "an Excel file", error) from error
        sheets = {sheet.title: sheet for sheet in book.worksheets}
        if not sheets:
            raise DataError(f"{name} must have a sheet of cells, got none")
        if format.sheet is not None and format.sheet not in sheets:
            known = listed(map(shown, sheets))
            raise DataError(f"{name}: {format.key}.sheet must be one of {known}, got {shown(format.sheet)}")
        hint = ""
        if format.sheet is None and len(sheets) > 1:
            others = listed(map(shown, [*sheets][1:]))
            hint = f" on its first sheet ({format.key}.sheet may name another: {others})"
        yield sheets[format.sheet or next(iter(sheets))], hint


@contextmanager
def _sheet(
    name: str, stream: IO[bytes], format: Format, wanted: Wanted
) -> Iterator[tuple[list[str], list[str], Iterator[tuple[int, list[Any]]], str]]:
    """Open a sheet: its header, [] where it has none; its columns' names, else numbers; its rows that are not blank.

    The last is the end of a message that misses something, about other sheets.
    """
    with _worksheet(name, stream, format) as (sheet, hint):
        sheet.reset_dimensions()  # some programs write wrong ones
        filled = ((number, row) for number, row in _sheet_rows(name, sheet) if any(cell is not None for cell in row))
        first = next(filled, None)
        if first is None:
            raise DataError(f"{name} must have rows, got none{hint}")
        header = [str(cell).strip() if cell is not None else "" for cell in first[1]]
        if format.header is None and wanted.by_number and not set(wanted.required) <= set(header):
            raise DataError(f"{name}: {format.key}.header must be true or false to read a sheet's columns by number")
        header = header if format.header is not False else []
        while header and not header[-1]:
            header.pop()
        names = header or list(map(str, range(1, len(first[1]) + 1)))
        yield header, names, filled if header else chain([first], filled), hint


def _sheet_rows(name: str, sheet: Any) -> Iterator[tuple[int, list[Any]]]:
    """Yield the numbers and values of a sheet's rows."""
    try:
        for number, row in enumerate(sheet.iter_rows(), 1):
            yield number, [_excel_value(cell) for cell in row]
    except Exception as error:  # of whichever part of a broken file
        raise _broken(name, "an Excel file", error) from error


def _broken(name: str, what: str, error: Exception) -> DataError:
    return DataError(f"{name} must be {what} that is whole ({' '.join(str(error).split())})")


def _excel_value(cell: Any) -> Any:
    """Return a cell's value; None for one that is blank, or an error of the sheet's such as #N/A."""
    return None if cell.data_type == "e" or cell.value == "" else cell.value


def _needed(module: str, name: str, what: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise DataError(f"{name} is {what}, which needs {package}: pip install 'minbert[tables]' ({error})") from error


def _columns(
    name: str, header: Sequence[str], wanted: Wanted, hint: str = ""
) -> tuple[list[str], list[Callable[[Any], Any]]]:
    """Return the columns to read and what tidies each; DataError for those that are lacking or there twice."""
    counts = Counter(header)
    missing = [column for column in wanted.required if column not in counts]
    if wanted.by_number and missing and max(map(int, wanted.required)) <= len(header):
        missing = []
    if missing:
        raise DataError(
            f"{name}: the columns must include {listed(map(shown, missing))}, got {listed(map(shown, header))}{hint}"
        )
    columns = [*wanted.required]
    if wanted.optional is not None and wanted.optional in counts:
        columns.append(wanted.optional)
    twice = [column for column in columns if counts[column] > 1]
    if twice:
        raise DataError(f"{name}: the columns must have different names, got {shown(twice[0])} twice")
    tidy = [tidy_label if column == wanted.label else tidy_text for column in wanted.required]
    return columns, [*tidy, *([tidy_id] if len(columns) > len(wanted.required) else [])]


def _tidied(cells: Sequence[Any], tidy: Sequence[Callable[[Any], Any]], wanted: Wanted) -> tuple[Any, ...]:
    row = tuple(each(cell) for each, cell in zip(tidy, cells, strict=True))
    return row if len(row) > len(wanted.required) else (*row, None)
