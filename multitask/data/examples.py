"""Files, or rows in memory, to checked examples: each row that can't be used is named by place, column and value."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from multitask.data.bad_rows import ON_BAD, BadRow, BadRows, OnBad
from multitask.data.files.dialects import Dialect
from multitask.data.files.formats import Fault, Source, source_name
from multitask.data.labels import (
    NOT_UNICODE,
    as_text,
    check_label,
    check_text,
    group_of,
    lacks_label,
    missing_texts,
    settle,
)
from multitask.data.memory import MemoryRows
from multitask.data.reading import columns_of, dialect_for, rows_of
from multitask.errors import ConfigError, DataError
from multitask.settings.checks import check_choice
from multitask.settings.kinds import Label
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


class Example(NamedTuple):
    """One usable row.

    :param label: a class's index (int), a regression's number (float), the indices of a row's classes where there may
        be any number of them (a tuple, rising), None without labels.
    :param line: its line in the file, or its number among rows in memory, from 1.
    :param groups: what it must not be parted from where dev rows are held out, by the task's ``group``.
    :param place: which of the rows that begin on its line it is, from 1, those left out among them; a JSON array may
        have them all on one.
    """

    id: str
    texts: tuple[str, ...]
    label: Label | None
    line: int
    groups: tuple[str, ...] = ()
    place: int = 1

    @property
    def where(self) -> tuple[int, int]:
        """Line and place: what tells the row from the others of its file, whichever task reads it."""
        return self.line, self.place


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
    def labels(self) -> list[Label]:
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
    bad_rows: OnBad = "missing",
    shared: bool = False,
    grouped: bool = False,
) -> Dataset:
    """Read all rows of a file, or all in memory.

    :param bad_rows: "missing" leaves out rows without text or label and raises for any other bad row, "error" raises
        for both, "skip" leaves both out, and lists them in ``skipped``.
    :param shared: the rows serve other tasks, too: those without this one's label are counted, and no bad rows.
    :param grouped: read the rows' groups, too.
    :raises DataError: for a bad row, as ``bad_rows`` says, and if no row is usable.
    """
    skipped: list[BadRow] = []
    unlabelled: list[int] = []
    dialect = dialect_for(source, task, labelled=labelled, grouped=grouped)
    examples = list(
        _examples(
            source,
            task,
            labelled=labelled,
            bad_rows=bad_rows,
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
    bad_rows: OnBad = "error",
    skipped: BadRows | None = None,
) -> Iterator[Example]:
    """Yield the rows of a file, open stream or in memory one by one; parameters as in read_examples.

    Without labels, plain text is welcome too: one sentence a line, or two with a tab between, and no header;
    plain_text.py says how it is told from a table.

    :param skipped: rows left out are appended to it.
    """
    return _examples(source, task, labelled=labelled, bad_rows=bad_rows, skipped=skipped, plain=not labelled)


def infer_labels(
    task: Task,
    rows: str | Path | MemoryRows | None = None,
    *,
    bad_rows: OnBad = "missing",
    notes: list[str] | None = None,
) -> Task:
    """Return the task with what its training rows decide: its labels, and the words that stand for a missing cell.

    :param rows: the training rows, if not those of ``task.train``.
    :param notes: gets a sentence for each word that was taken as one or the other.
    :raises ConfigError: for a task with neither labels nor training rows.
    :raises DataError: for rows whose labels can't be learned: of one class, say, or each of its own.
    """
    check_choice("bad_rows", bad_rows, ON_BAD)
    rows = task.train if rows is None else rows
    if rows is None and (task.labels is not None or not task.rules.has_classes):
        return task
    if rows is None:
        raise ConfigError(f"tasks.{task.name} must have labels, or a training file to take them from, got neither")
    read = rows_of(rows, task, [*task.text, task.label], None)
    settled, said = settle(task, _name(rows), read, in_memory=isinstance(rows, MemoryRows))
    if notes is not None:
        notes.extend(said)
    return settled


def _name(source: Source | MemoryRows) -> str:
    return source.name if isinstance(source, MemoryRows) else source_name(source)


def _examples(
    source: Source | MemoryRows,
    task: Task,
    *,
    labelled: bool,
    bad_rows: OnBad,
    skipped: BadRows | None,
    plain: bool,
    dialect: Dialect | None = None,
    unlabelled: list[int] | None = None,
    grouped: bool = False,
) -> Iterator[Example]:
    check_choice("bad_rows", bad_rows, ON_BAD)
    if labelled and task.rules.has_classes:
        _ = task.classes  # A ConfigError now rather than at the first row.
    name, in_memory = _name(source), isinstance(source, MemoryRows)
    width = len(task.text)
    required, optional = columns_of(task, labelled=labelled, grouped=grouped)
    groups = slice(width + labelled, len(required))
    rows = rows_of(source, task, required, optional, plain=width if plain else 0, dialect=dialect)
    line = at = 0
    for number, row in enumerate(rows, 1):
        line, at = row.line, at + 1 if row.line == line else 1
        fault = row.fault
        label: Label | None = None
        if fault is None and unlabelled is not None and lacks_label(task, row.cells[width]):
            unlabelled.append(line)
            continue
        if fault is None:
            missing = frozenset[str]() if row.plain else missing_texts(task)
            faults = (check_text(task, column, row.cells[place], missing) for place, column in enumerate(task.text))
            fault = next(filter(None, faults), None)
        if fault is None and labelled:
            checked = check_label(task, row.cells[width])
            fault, label = (checked, None) if isinstance(checked, Fault) else (None, checked)
        identity = "" if fault is not None or row.cells[-1] is None else as_text(row.cells[-1])
        if fault is None and identity and NOT_UNICODE.search(identity):
            fault = Fault(task.id or "", identity, "must be UTF-8")
        if fault is None:
            together = tuple(filter(None, (group_of(cell) for cell in row.cells[groups])))
            yield Example(identity or str(number), row.cells[:width], label, line, together, at)
            continue
        bad = BadRow(name, line, fault.column, fault.value, fault.reason, in_memory, fault.missing)
        if bad_rows == "error" or (bad_rows == "missing" and not fault.missing):
            raise DataError(str(bad))
        if skipped is not None:
            skipped.append(bad)
