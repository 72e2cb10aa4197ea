"""Files, or rows in memory, to checked examples: each row that can't be used is named by place, column and value."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from multitask.data.dialects import Dialect
from multitask.data.formats import Fault, Source, source_name
from multitask.data.memory import MemoryRows, is_missing
from multitask.data.reading import columns_of, dialect_for, rows_of
from multitask.errors import ConfigError, DataError
from multitask.settings.checks import check_choice, shown
from multitask.settings.kinds import label_key
from multitask.settings.task import Task

__all__ = [
    "ON_BAD",
    "BadRow",
    "BadRows",
    "Dataset",
    "Example",
    "OnBad",
    "infer_labels",
    "iter_examples",
    "read_examples",
]

OnBad = Literal["missing", "error", "skip"]
ON_BAD = ("missing", "error", "skip")
# What other programs write where nothing is. Other spellings ("none") may well be a word or a class.
MISSING = frozenset({"", "NaN", "nan", "None", "null", "NULL"})
EMPTY = "must not be empty"
# What a cell with a label may be. A list's or an object's spelling would be a class by accident.
LABELS = (str, int, float, Decimal, type(None))
# Lone surrogates: bytes that were not UTF-8 (formats.py), or half an emoji of a JSON escape.
NOT_UNICODE = re.compile("[\ud800-\udfff]")


class Example(NamedTuple):
    """One usable row.

    :param label: a class's index (int), a regression's number (float), None without labels.
    :param line: its line in the file, or its number among rows in memory, from 1.
    :param groups: what it must not be parted from where dev rows are held out, by the task's ``group``.
    """

    id: str
    texts: tuple[str, ...]
    label: int | float | None
    line: int
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class BadRow:
    """A row that can't be used; ``str`` of it is one sentence.

    :param path: its file, or what its rows in memory are called.
    :param column: "" if the row as a whole is at fault.
    :param value: what the column, or the row, holds.
    :param reason: what it must be: "must not be empty".
    """

    path: str
    line: int
    column: str
    value: Any
    reason: str
    in_memory: bool = False

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


@dataclass(frozen=True)
class Dataset:
    """The usable rows of a file, or in memory, in their order, those left out, and how the file is written.

    :param unlabelled: how many rows have no label of this task, where they serve others.
    """

    path: str
    examples: list[Example]
    skipped: list[BadRow] = field(default_factory=list)
    unlabelled: int = 0
    dialect: Dialect | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def labels(self) -> list[int | float]:
        """Labels of the rows; without labels it is empty."""
        return [example.label for example in self.examples if example.label is not None]

    @property
    def texts(self) -> list[str]:
        """The first text of each row."""
        return [example.texts[0] for example in self.examples]

    @property
    def pairs(self) -> list[str] | None:
        """The second text of each row; None for single texts."""
        if not self.examples or len(self.examples[0].texts) == 1:
            return None
        return [example.texts[1] for example in self.examples]


def read_examples(
    source: str | Path | MemoryRows,
    task: Task,
    *,
    labelled: bool = True,
    on_bad: OnBad = "missing",
    shared: bool = False,
    grouped: bool = False,
) -> Dataset:
    """Read all rows of a file, or all in memory.

    :param on_bad: "missing" leaves out rows without text or label and raises for any other bad row, "error" raises
        for both, "skip" leaves both out, and lists them in ``skipped``.
    :param shared: the rows serve other tasks, too: those without this one's label are counted, and no bad rows.
    :param grouped: read the rows' groups, too.
    :raises DataError: for a bad row, as ``on_bad`` says, and if no row is usable.
    """
    skipped: list[BadRow] = []
    unlabelled: list[int] = []
    dialect = dialect_for(source, task, labelled=labelled, grouped=grouped)
    examples = list(
        _examples(
            source,
            task,
            labelled=labelled,
            on_bad=on_bad,
            skipped=skipped,
            plain=False,
            dialect=dialect,
            unlabelled=unlabelled if shared and labelled else None,
            grouped=grouped,
        )
    )
    if not examples:
        first = f": {skipped[0]}" if skipped else ""
        first += f" ({len(unlabelled)} rows without its label, column {task.label!r})" if unlabelled else ""
        raise DataError(f"{_name(source)} must have a usable row for task {task.name}, got none{first}")
    return Dataset(_name(source), examples, skipped, len(unlabelled), dialect)


def iter_examples(
    source: Source | MemoryRows,
    task: Task,
    *,
    labelled: bool = False,
    on_bad: OnBad = "error",
    skipped: BadRows | None = None,
) -> Iterator[Example]:
    """Yield the rows of a file, open stream or in memory one by one; parameters as in read_examples.

    Without labels, plain text is welcome too: one sentence a line, or two with a tab between, and no header;
    plain_text.py says how it is told from a table.

    :param skipped: rows left out are appended to it.
    """
    return _examples(source, task, labelled=labelled, on_bad=on_bad, skipped=skipped, plain=not labelled)


def infer_labels(task: Task, rows: str | Path | MemoryRows | None = None, *, on_bad: OnBad = "missing") -> Task:
    """Return the task with its labels: those it has or, for classes, those of its training rows.

    Numbers are sorted as numbers, all else as text; of several spellings of one number the first is kept.

    :param rows: the training rows, if not those of ``task.train``.
    :raises ConfigError: for a task with neither labels nor training rows.
    :raises DataError: for a file with fewer than two classes, or with so many that they must be something else.
    """
    if task.labels is not None or not task.rules.has_classes:
        return task
    rows = task.train if rows is None else rows
    if rows is None:
        raise ConfigError(f"tasks.{task.name} must have labels, or a training file to take them from, got neither")
    check_choice("on_bad", on_bad, ON_BAD)
    spellings: dict[Any, str] = {}
    count, other = 0, ""
    for row in rows_of(rows, task, [task.label], None):
        if row.fault is not None:
            continue  # read_examples decides what becomes of it.
        if not isinstance(row.cells[0], LABELS):
            other = f"{shown(row.cells[0])}, which is neither a string nor a number"
            continue
        text = _as_text(row.cells[0]).strip()
        if text not in MISSING and not _text_fault(task.label, text):
            spellings.setdefault(label_key(text), text)
            count += 1
    most = max(20, count // 2)
    if len(spellings) > most:
        raise DataError(
            f"{_name(rows)}: column {task.label!r} must have at most {most} classes in {count} rows, "
            f"got {len(spellings)}: "
            f"is tasks.{task.name} a regression, or its label another column?"
        )
    if len(spellings) < 2:
        found = f"only {next(iter(spellings.values()))!r}" if spellings else other or "none"
        raise DataError(f"{_name(rows)}: column {task.label!r} must have at least two classes, got {found}")
    numeric = not any(isinstance(key, str) for key in spellings)
    order = sorted(spellings) if numeric else sorted(spellings, key=lambda key: spellings[key])
    return replace(task, labels=tuple(spellings[key] for key in order))


def _name(source: Source | MemoryRows) -> str:
    return source.name if isinstance(source, MemoryRows) else source_name(source)


def _examples(
    source: Source | MemoryRows,
    task: Task,
    *,
    labelled: bool,
    on_bad: OnBad,
    skipped: BadRows | None,
    plain: bool,
    dialect: Dialect | None = None,
    unlabelled: list[int] | None = None,
    grouped: bool = False,
) -> Iterator[Example]:
    check_choice("on_bad", on_bad, ON_BAD)
    if labelled and task.rules.has_classes:
        _ = task.classes  # A ConfigError now rather than at the first row.
    name, in_memory = _name(source), isinstance(source, MemoryRows)
    width = len(task.text)
    required, optional = columns_of(task, labelled=labelled, grouped=grouped)
    groups = slice(width + labelled, len(required))
    rows = rows_of(source, task, required, optional, plain=width if plain else 0, dialect=dialect)
    for number, row in enumerate(rows, 1):
        fault = row.fault
        label: int | float | None = None
        if fault is None and unlabelled is not None and _lacks_label(task, row.cells[width]):
            unlabelled.append(row.line)
            continue
        if fault is None:
            missing = frozenset({""}) if row.plain else MISSING
            faults = (_text_fault(column, row.cells[place], missing) for place, column in enumerate(task.text))
            fault = next(filter(None, faults), None)
        if fault is None and labelled:
            checked = _check_label(task, row.cells[width])
            fault, label = (checked, None) if isinstance(checked, Fault) else (None, checked)
        identity = "" if fault is not None or row.cells[-1] is None else _as_text(row.cells[-1])
        if fault is None and identity and NOT_UNICODE.search(identity):
            fault = Fault(task.id or "", identity, "must be UTF-8")
        if fault is None:
            together = tuple(filter(None, (_group(cell) for cell in row.cells[groups])))
            yield Example(identity or str(number), row.cells[:width], label, row.line, together)
            continue
        bad = BadRow(name, row.line, fault.column, fault.value, fault.reason, in_memory)
        if on_bad == "error" or (on_bad == "missing" and not fault.missing):
            raise DataError(str(bad))
        if skipped is not None:
            skipped.append(bad)


def _text_fault(column: str, value: Any, missing: frozenset[str] = MISSING) -> Fault | None:
    """Return what keeps a cell from being a text, if anything does.

    :param missing: the words that stand for none.
    """
    if not isinstance(value, str):
        if is_missing(value):
            return Fault(column, value, EMPTY, missing=True)
        return Fault(column, value, "must be a string")
    if not value.strip() or value in missing:
        return Fault(column, value, EMPTY, missing=True)
    if "\0" in value:
        return Fault(column, value, "must not contain NUL characters")
    if not value.isascii() and NOT_UNICODE.search(value):
        return Fault(column, value, "must be UTF-8")
    return None


def _check_label(task: Task, value: Any) -> int | float | Fault:
    """Return the label as a class's index or a number, or what is wrong with it."""
    text = _as_text(value).strip()
    try:
        return task.rules.read_label(task, text)
    except ValueError as error:
        if text in MISSING:
            return Fault(task.label, value, EMPTY, missing=True)
        return Fault(task.label, value, str(error))


def _lacks_label(task: Task, value: Any) -> bool:
    checked = _check_label(task, value)
    return isinstance(checked, Fault) and checked.missing


def _group(value: Any) -> str:
    """Return a group as it is told from others; "" for a row that is in none, and so is on its own."""
    text = "" if is_missing(value) else " ".join(_as_text(value).split())
    return "" if text in MISSING else text


def _as_text(value: Any) -> str:
    """Return a cell as CSV would spell it; JSON also has numbers, true and null."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
