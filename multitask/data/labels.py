"""Cells as labels and texts: which spellings mean that nothing is there, and what the training rows decide of both."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from multitask.data.bad_rows import BadRow
from multitask.data.files.rows import Fault, Row
from multitask.data.memory import is_missing
from multitask.errors import DataError
from multitask.settings.checks import listed, shown
from multitask.settings.kinds import Label, label_key
from multitask.settings.task import Task

__all__ = ["NOT_UNICODE", "as_text", "check_label", "check_text", "group_of", "lacks_label", "missing_texts", "settle"]

# What only programs write where nothing is: Python, pandas and Excel.
NAN = frozenset({"NaN", "nan", "<NA>", "#N/A"})
# What R, pandas, Python and SQL write there, but people too, for a class or an answer: their share decides. "none"
# is no program's spelling.
WORDS = frozenset({"NA", "N/A", "n/a", "None", "null", "NULL"})
MISSING = NAN | WORDS
# Our choice: a word that stands in so many cells of a column, and so large a share, is one of its classes or texts.
LEAST, SHARE = 5, 0.05
EMPTY = "must not be empty"
# What a cell with one label may be. A list's or an object's spelling would be a class by accident.
LABELS = (str, int, float, Decimal, type(None))
# Lone surrogates: bytes that were not UTF-8 (formats.py), or half an emoji of a JSON escape.
NOT_UNICODE = re.compile("[\ud800-\udfff]")


def missing_texts(task: Task) -> frozenset[str]:
    """Return the words that stand for a missing text."""
    return MISSING if task.missing is None else frozenset(task.missing)


def check_text(task: Task, column: str, value: Any, missing: frozenset[str] = MISSING) -> Fault | None:
    """Return what keeps a cell from being a text, if anything does.

    :param missing: the words that stand for none.
    """
    if not isinstance(value, str):
        if is_missing(value):
            return Fault(column, value, EMPTY, missing=True)
        return Fault(column, value, "must be a string")
    text = value.strip()
    if not text:
        return Fault(column, value, EMPTY, missing=True)
    if text in missing:
        return Fault(column, value, f"{EMPTY} or a word of tasks.{task.name}.missing", missing=True)
    return _not_unicode(column, value)


def _not_unicode(column: str, text: str) -> Fault | None:
    if "\0" in text:
        return Fault(column, text, "must not contain NUL characters")
    if not text.isascii() and NOT_UNICODE.search(text):
        return Fault(column, text, "must be UTF-8")
    return None


def check_label(task: Task, value: Any) -> Label | Fault:
    """Return the label as a class's index, a number or the indices of several classes, or what is wrong with it."""
    text = as_text(value).strip()
    if not text or is_missing(value):
        lone = f" ({task.label_separator!r} alone stands for no label)" if task.label_separator else ""
        return Fault(task.label, value, f"{EMPTY}{lone}", missing=True)
    try:
        _check_one(task, value)
        return task.rules.read_label(task, value if task.rules.many else text)
    except ValueError as error:
        if text in MISSING and isinstance(value, str):
            hint = f"{EMPTY}, or tasks.{task.name}.labels must name it" if task.rules.has_classes else EMPTY
            return Fault(task.label, value, hint, missing=True)
        return Fault(task.label, value, str(error))


def lacks_label(task: Task, value: Any) -> bool:
    """Return whether a cell has no label."""
    checked = check_label(task, value)
    return isinstance(checked, Fault) and checked.missing


def group_of(value: Any) -> str:
    """Return a group as it is told from others; "" for a row that is in none, and so is on its own."""
    text = "" if is_missing(value) else " ".join(as_text(value).split())
    return "" if text in MISSING else text


def _check_one(task: Task, value: Any) -> None:
    """Raise ValueError for a list where one label is wanted, or what is no label at all."""
    if isinstance(value, LABELS) or task.rules.many:
        return
    if isinstance(value, list | tuple):
        raise ValueError(f"must be one label (tasks.{task.name}.kind = 'multilabel' takes lists of them)")
    raise ValueError("must be a string or a number")


def as_text(value: Any) -> str:
    """Return a cell as CSV would spell it; JSON also has numbers, true and null."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass
class Survey:
    """What is seen in the training rows.

    :param labels: rows by spelling of a label, by its key: of several spellings of one number the first counts.
    :param words: cells by column and word of those that may stand for a missing one, ``cells`` all that are not empty.
    :param rows: all of them.
    :param faults: rows that can't be used, of which ``first`` is the first.
    """

    labels: dict[Hashable, str] = field(default_factory=dict)
    labelled: int = 0
    rows: int = 0
    numbers: set[Label] = field(default_factory=set)
    words: Counter[tuple[str, str]] = field(default_factory=Counter)
    cells: Counter[str] = field(default_factory=Counter)
    first: BadRow | None = None
    faults: int = 0

    def large(self, column: str, word: str) -> bool:
        """Return whether a word is so frequent in its column that it must be a class or a text of it."""
        count = self.words[column, word]
        return word in WORDS and count >= max(LEAST, SHARE * self.cells[column])


def settle(task: Task, name: str, rows: Iterable[Row], *, in_memory: bool) -> tuple[Task, list[str]]:
    """Return the task with its labels and missing words as the training rows decide them, and a note on each word.

    Labels are those that the task has or, for classes, those of the rows: numbers are sorted as numbers, all else as
    text. A word such as "None" is a class, or a text, where the settings name it so or it has a large share.

    :param name: what messages call the rows.
    :raises DataError: for fewer than two classes, so many that they must be something else, or numbers all equal.
    """
    survey = _survey(task, name, rows, in_memory)
    notes = [*_settle_words(task, survey)]
    texts = {word for column, word in survey.words if column in task.text and survey.large(column, word)}
    if texts and task.missing is None:
        task = replace(task, missing=tuple(sorted(MISSING - texts)))
    if not task.rules.has_classes:
        _check_numbers(task, name, survey)
    elif task.labels is None:
        labels = _labels_of(task, name, survey)
        notes.extend(_alike(task, labels))
        task = replace(task, labels=labels)
    return task, notes


def _survey(task: Task, name: str, rows: Iterable[Row], in_memory: bool) -> Survey:
    survey, width = Survey(), len(task.text)
    infer = task.rules.has_classes and task.labels is None
    for row in rows:
        fault = row.fault
        survey.rows += 1
        if fault is None:
            for column, cell in zip((*task.text, task.label), row.cells, strict=False):
                word = cell.strip() if isinstance(cell, str) else cell
                survey.cells[column] += not (word == "" if isinstance(cell, str) else is_missing(cell))
                if isinstance(cell, str) and word in MISSING:
                    survey.words[column, word] += 1
            if infer:
                fault = _add_labels(task, survey, row.cells[width])
            elif not task.rules.has_classes and len(survey.numbers) < 2:
                label = check_label(task, row.cells[width])
                survey.numbers.update([] if isinstance(label, Fault) else [label])
                survey.labelled += not isinstance(label, Fault)
        if fault is not None and not fault.missing:
            survey.faults += 1
            survey.first = survey.first or BadRow(name, row.line, fault.column, fault.value, fault.reason, in_memory)
    return survey


def _add_labels(task: Task, survey: Survey, cell: Any) -> Fault | None:
    """Count a cell's labels, or return what is wrong with it."""
    text = as_text(cell).strip()
    if not text or is_missing(cell):
        return None
    if isinstance(cell, str) and text in MISSING:  # decided when all are counted
        return None
    try:
        _check_one(task, cell)
        names = task.rules.names(task, cell if task.rules.many else text)
    except ValueError as error:
        return Fault(task.label, cell, str(error))
    for label in names:
        fault = _not_unicode(task.label, label)
        if fault is not None:
            return fault
        survey.labels.setdefault(label_key(label), label)
    survey.labelled += 1
    return None


def _settle_words(task: Task, survey: Survey) -> Iterable[str]:
    """Yield a note for each word whose meaning the rows decide, or by which a class of the file is left out."""
    key = f"tasks.{task.name}"
    for (column, word), count in sorted(survey.words.items()):
        what = f"{task.name}: {word!r} in {count} of {survey.cells[column]} cells of column {column!r} is taken"
        large = survey.large(column, word)
        if column in task.text and task.missing is None:
            if large:
                yield f"{what} as a text ({key}.missing = [{word!r}] takes it as missing)"
            else:
                yield f"{what} as missing ({key}.missing = [] takes it as a text)"
        elif column == task.label and not task.rules.has_classes:
            yield f"{what} as missing"
        elif column == task.label and task.labels is None and large:
            yield f"{what} as a class ({key}.labels without it takes it as missing)"
        elif column == task.label and (task.labels is None or label_key(word) not in task.class_indices):
            yield f"{what} as missing ({key}.labels with it takes it as a class)"


def _labels_of(task: Task, name: str, survey: Survey) -> tuple[str, ...]:
    """Return the labels of the rows in their order."""
    spellings = dict(survey.labels)
    count, column = survey.labelled, f"{name}: column {task.label!r}"
    hints = []
    for (of, word), cells in survey.words.items():
        if of == task.label and survey.large(of, word):
            spellings[label_key(word)] = word
            count += cells
        elif of == task.label:
            cell = f"{word!r} ({_rows(cells)})"
            hints.append(f"{cell} stands for a missing label unless tasks.{task.name}.labels names it")
    most = max(20, count // 2)
    if len(spellings) > most:
        raise DataError(
            f"{column} must have at most {most} classes in {count} rows, got {len(spellings)}: "
            f"is tasks.{task.name} a regression, or its label another column?"
        )
    if not survey.rows:
        raise DataError(f"{name} must have rows below its header, got none")
    if len(spellings) < 2:
        if not spellings and survey.first is not None:
            more = f" ({_rows(survey.faults)} can't be used)" if survey.faults > 1 else ""
            raise DataError(f"{survey.first}{more}")
        if survey.first is not None:
            hints.append(f"{_rows(survey.faults)} can't be used, the first: {survey.first}")
        found = f"only {shown(next(iter(spellings.values())))}" if spellings else "none"
        raise DataError(f"{column} must have at least two classes, got {'; '.join([found, *hints])}")
    numeric = not any(isinstance(key, str) for key in spellings)
    order: list[Any] = sorted(spellings, key=None if numeric else lambda key: spellings[key])
    return tuple(spellings[key] for key in order)


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _alike(task: Task, labels: Iterable[str]) -> Iterable[str]:
    """Yield a note for labels of which all but one may be typing errors: they differ in case or blanks alone."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(" ".join(label.casefold().split()), []).append(label)
    for alike in groups.values():
        if len(alike) > 1:
            yield f"{task.name}: the classes {listed(map(repr, alike))} differ in case or blanks alone"


def _check_numbers(task: Task, name: str, survey: Survey) -> None:
    """Refuse numbers that are all one: there is nothing to learn, and no correlation with them."""
    if len(survey.numbers) == 1 and survey.labelled > 1 and not survey.faults:
        raise DataError(
            f"{name}: column {task.label!r} must have at least two different numbers, got"
            f" {shown(next(iter(survey.numbers)))} in all {survey.labelled} rows"
        )
