"""Rows in memory as rows of cells: lists of dicts, pandas DataFrames, datasets.Dataset, any iterable of mappings.

Neither pandas nor datasets is imported: they are known by what they can do, and are read by column. Only the columns
that a task uses are kept, so that an iterable is read once.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from multitask.data.files.rows import Fault, Row
from multitask.errors import ConfigError, DataError
from multitask.settings.checks import check_known, listed, shown
from multitask.settings.task import FILES, Task

__all__ = [
    "Frame",
    "Given",
    "MemoryRows",
    "has_columns",
    "is_frame",
    "is_mapping",
    "is_missing",
    "memory_rows",
    "rows_by_task",
    "tidy_id",
    "tidy_label",
    "tidy_text",
]


class Frame(Protocol):
    """What a pandas DataFrame is known by."""

    @property
    def iloc(self) -> Any:
        """Rows by their places."""

    @property
    def columns(self) -> Any:
        """The names of the columns."""

    @property
    def index(self) -> Any:
        """The names of the rows."""


@dataclass(frozen=True)
class MemoryRows:
    """The cells of rows in memory, as Python's own values.

    :param name: what messages call them: "data['topic']['train']".
    :param columns: the cells by column, each list as long as there are rows; without an ``id`` that is not there.
    :param faults: by its place what is wrong with a row that has no columns.
    :param origin: equal for what was taken, for several tasks, from one object.
    """

    name: str
    columns: dict[str, list[Any]]
    faults: dict[int, Fault]
    origin: object = field(default_factory=object, compare=False)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def read(self, required: Sequence[str], optional: str | None) -> Iterator[Row]:
        """Yield the rows, numbered from 1; parameters as in ``formats.read_rows``."""
        nothing = [None] * len(self)
        columns = [*(self.columns[column] for column in required), self.columns.get(optional or "", nothing)]
        for place, cells in enumerate(zip(*columns, strict=True)):
            fault = self.faults.get(place)
            yield Row(place + 1, cells if fault is None else (), fault)

    @cached_property
    def digest(self) -> str:
        """The number of rows and the SHA-256 over their cells."""
        sha = hashlib.sha256()
        for cells in zip(*self.columns.values(), strict=True):
            sha.update(json.dumps([_digested(cell) for cell in cells]).encode() + b"\n")
        return f"{len(self)} rows, SHA-256 {sha.hexdigest()}"


# By task and split, of those tasks and splits whose rows are in memory.
Given = Mapping[str, Mapping[str, MemoryRows]]


def rows_by_task(data: Any, tasks: Iterable[Task], *, split: str | None = None) -> dict[str, dict[str, MemoryRows]]:
    """Take the rows in memory that a user gave for tasks: ``{"topic": {"train": rows, "dev": rows}}``.

    :param split: take the rows that this split is read from alone; a task may then have them without a dict around.
    :raises ConfigError: for tasks or splits that are not known, and for anything but such a dict.
    :raises DataError: for what is no rows, or lacks a column.
    """
    known = {task.name: task for task in tasks}
    first = next(iter(known))
    example = f"{{{first!r}: rows}}" if split is not None else f"{{{first!r}: {{'train': rows}}}}"
    if not isinstance(data, Mapping):
        raise ConfigError(f"data must be a dict such as {example}, got {_kind(data)}")
    check_known("data: the task", data, known)
    result: dict[str, dict[str, MemoryRows]] = {}
    origins: dict[int, object] = {}  # by id: data holds all of the objects meanwhile

    def taken(name: str, rows: Any, what: str, grouped: bool = False) -> MemoryRows:
        memory = memory_rows(rows, known[name], what, grouped=grouped)
        return replace(memory, origin=origins.setdefault(id(rows), memory.origin))

    for name, given in data.items():
        if isinstance(given, Mapping):
            check_known(f"data[{name!r}]: the split", given, FILES)
            splits = {key: rows for key, rows in given.items() if rows is not None}
            if split is not None:
                chosen = split if split in splits else "train"
                splits = {key: rows for key, rows in splits.items() if key == chosen}
            held_out = "dev" not in splits and known[name].dev is None
            result[name] = {
                key: taken(name, rows, f"data[{name!r}][{key!r}]", grouped=key == "train" and held_out)
                for key, rows in splits.items()
            }
        elif split is not None:
            # With dev rows beside them none are held out of training rows.
            result[name] = dict.fromkeys([split, "dev"], taken(name, given, f"data[{name!r}]"))
        else:
            raise ConfigError(f"data[{name!r}] must be a dict of splits, as in {example}, got {_kind(given)}")
        for rows in result[name].values():
            if not len(rows):
                raise DataError(f"{rows.name} must have rows, got none")
    return result


def memory_rows(rows: Any, task: Task, name: str, *, labelled: bool = True, grouped: bool = False) -> MemoryRows:
    """Take the columns that a task uses from rows in memory.

    :param name: what messages call the rows.
    :param labelled: whether the label is used.
    :param grouped: whether the groups are.
    :raises DataError: for what is no rows, and for columns that are lacking or there twice.
    """
    groups = task.group or () if grouped else ()
    required = [*task.text, *([task.label] if labelled else []), *groups]
    wanted = [*dict.fromkeys([*required, *([task.id] if task.id is not None else [])])]
    faults: dict[int, Fault] = {}
    columns: dict[str, Iterable[Any]]
    if is_frame(rows):
        header = {column for column in rows.columns if isinstance(column, str)}
        _check_header(name, list(rows.columns), required, wanted)
        columns = {column: np.asarray(rows[column]) for column in wanted if column in header}
    elif _is_dataset(rows):
        plain = rows.with_format(None)  # else numbers may come as tensors of any framework
        _check_header(name, plain.column_names, required, wanted)
        columns = {column: plain[column][:] for column in wanted if column in plain.column_names}
    else:
        columns, faults = _columns_of(name, rows, required, wanted)
    tidy: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys([*groups, task.id or ""], tidy_id),
        **dict.fromkeys(task.text, tidy_text),
        task.label: tidy_label,
    }
    cells = {column: [tidy[column](cell) for cell in values] for column, values in columns.items()}
    return MemoryRows(name, cells, faults)


def is_frame(rows: Any) -> bool:
    """Return whether rows are a pandas DataFrame, or what can be used like one."""
    return _has(rows, "iloc", "columns", "index")


def _is_dataset(rows: Any) -> bool:
    return _has(rows, "with_format", "column_names", "__len__") and not is_mapping(rows)


def _has(value: Any, *names: str) -> bool:
    return not isinstance(value, type) and all(hasattr(value, name) for name in names)


def has_columns(rows: Any) -> bool:
    """Return whether rows can give a column: a DataFrame or a Dataset."""
    return is_frame(rows) or _is_dataset(rows)


def is_mapping(row: Any) -> bool:
    """Return whether a row is a mapping from columns to cells: a dict, a pandas Series, an sqlite3.Row."""
    return _has(row, "keys", "__getitem__") and not is_frame(row)


def _check_header(name: str, header: Sequence[Any], required: Sequence[str], wanted: Sequence[str]) -> None:
    counts = Counter(column for column in header if isinstance(column, str))  # pandas' NA can't be compared
    missing = [column for column in required if column not in counts]
    if missing:
        raise DataError(
            f"{name}: the columns must include {listed(map(shown, missing))}, got {listed(map(shown, header))}"
        )
    twice = [column for column in wanted if counts[column] > 1]
    if twice:
        raise DataError(f"{name}: the columns must have different names, got {shown(twice[0])} twice")


def _columns_of(
    name: str, rows: Any, required: Sequence[str], wanted: Sequence[str]
) -> tuple[dict[str, Iterable[Any]], dict[int, Fault]]:
    """Return the wanted cells of mappings by column, None where one lacks a column, and what is wrong with rows."""
    form = f"{name} must be a list of dicts, a DataFrame, a Dataset or another iterable of mappings"
    if isinstance(rows, str | bytes | type | Mapping) or not hasattr(rows, "__iter__"):
        hint = "; name a file in its Task" if isinstance(rows, str) or hasattr(rows, "__fspath__") else ""
        raise DataError(f"{form}, got {_kind(rows)}{hint}")
    columns: dict[str, Any] = {column: [] for column in wanted}
    faults: dict[int, Fault] = {}
    header: dict[Any, None] = {}
    for place, row in enumerate(rows):
        keys: Collection[Any] = ()
        if is_mapping(row):
            keys = row if isinstance(row, dict) else list(row.keys())
            header.update(dict.fromkeys(keys))
        elif place == 0:
            raise DataError(f"{form}, got {_kind(rows)} whose first row is {_kind(row)}, {shown(row)}")
        else:
            faults[place] = Fault("", row, "must be a mapping from columns to cells")
        for column, cells in columns.items():
            cells.append(row[column] if column in keys else None)
    if header:
        _check_header(name, list(header), required, wanted)
    return {column: cells for column, cells in columns.items() if column in required or column in header}, faults


def _kind(value: Any) -> str:
    """Return what a value is, for a message: "a list", "None"."""
    if value is None:
        return "None"
    kind = type(value).__name__
    return f"an {kind}" if kind[0] in "aeiouAEIOU" else f"a {kind}"


def tidy_text(cell: Any) -> Any:
    """Return a cell as Python's own value: numpy's and tensors' numbers as numbers, NaN or None for a missing one."""
    if type(cell) is str:
        return cell
    if isinstance(cell, str):
        return str.__str__(cell)
    if is_missing(cell):
        return float("nan") if isinstance(cell, float | np.floating) else None
    if isinstance(cell, np.floating):
        return float(str(cell))  # what it is printed as: of float32, 0.1 and not 0.10000000149
    if getattr(cell, "ndim", None) == 0 and hasattr(cell, "item"):
        return cell.item()
    return cell


def is_missing(cell: Any) -> bool:
    """Return whether a cell is None, NaN, NaT or pandas' NA: the last can't say whether it is itself."""
    try:
        return cell is None or bool(cell != cell)  # noqa: PLR0124
    except (TypeError, ValueError, ArithmeticError, RuntimeError):
        return type(cell).__name__ == "NAType"


def tidy_label(cell: Any) -> Any:
    """Return a label's cell as it is spelled: True, not true, and whole numbers without a point.

    pandas makes 1.0 of 1 in a column where any cell is missing.
    """
    if isinstance(cell, list | tuple) or getattr(cell, "ndim", 0) == 1:
        return [tidy_label(each) for each in cell]  # any number of labels
    cell = tidy_text(cell)
    if isinstance(cell, bool):
        return str(cell)
    return int(cell) if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53 else cell


def tidy_id(cell: Any) -> Any:
    """Return an id's cell as it is spelled; None for a missing one."""
    cell = tidy_label(cell)
    return None if is_missing(cell) else cell


def _digested(cell: Any) -> Any:
    """Return a cell as JSON can hold it; of one that no task can use, the name of its type."""
    if isinstance(cell, list):
        return [_digested(each) for each in cell]
    if is_missing(cell) or isinstance(cell, str | int | float):
        return None if is_missing(cell) else cell
    return str(cell) if isinstance(cell, Decimal) else type(cell).__name__
