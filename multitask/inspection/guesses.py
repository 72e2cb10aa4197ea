"""Guess from a sample of a file's rows which column is what, and which kind of task they make.

All of it is our choice, and a guess: names first (those that public data sets use), then what the cells hold.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multitask.inspection.column import GROUPS, MOST_WHOLE_NUMBERS, Column
from multitask.settings.kinds import label_key, parse_number

__all__ = ["Guess", "guess"]

PAIRS = [("premise", "hypothesis"), ("question", "sentence"), ("question", "answer"), ("query", "document")]
PAIRS += [("query", "passage"), ("question", "passage"), ("text", "hypothesis")]
YES_OR_NO = [{"0", "1"}, {"no", "yes"}, {"n", "y"}, {"false", "true"}, {"-1", "1"}, {"neg", "pos"}]
YES_OR_NO += [{"negative", "positive"}, {"ham", "spam"}]
MOST_PARTS = 200
# What both a name and few different cells make.
LIKE_A_LABEL = 5.0
PART_SEPARATORS = (";", "|", ",")
# 1.234,5 is one number.
GROUPED_NUMBER = re.compile(r"\s*[+-]?\d{1,3}(?:\.\d{3})+,\d+\s*")


@dataclass(frozen=True)
class Guess:
    """Which columns a task takes, and its kind.

    :param text: one column or two.
    :param label: "" where no column looks like one.
    :param kind: of the task.
    :param separator: between the labels of a cell, of a multilabel task.
    :param group: columns that may name groups of rows.
    :param other_texts: further columns that hold texts.
    :param other_labels: further columns that look like labels by name and cells.
    :param other_kind: another kind that is as likely: for classes that are whole numbers, and may be an order.
    """

    text: list[str]
    label: str
    id: str | None
    kind: str
    separator: str | None
    group: list[str]
    other_texts: list[str]
    other_labels: list[str]
    other_kind: str | None


def guess(
    columns: Mapping[str, Sequence[Any]],
    *,
    text: Sequence[str] | None = None,
    label: str | None = None,
    kind: str | None = None,
) -> Guess:
    """Guess what is not given.

    :param columns: the cells of a sample of rows by column; None for one that is missing.
    """
    known = {
        name: Column(name, [cell for cell in cells if cell is not None and str(cell).strip()])
        for name, cells in columns.items()
    }
    if label is None:
        others = [column for name, column in known.items() if name not in (text or ())]
        # Of equals the last: labels mostly stand behind what they label.
        best = max(reversed(others), key=Column.likeness_to_label, default=None)
        label = best.name if best is not None and best.likeness_to_label() > 0 else ""
    rest = {name: column for name, column in known.items() if name != label}
    ids = [name for name, column in rest.items() if column.is_id and name not in (text or ())]
    texts = [name for name, column in rest.items() if name not in ids and column.is_text]
    if text is None:
        text = _texts(rest, texts or [name for name in rest if name not in ids and rest[name].likeness_to_text() > 0])
    separator = None
    if kind is None or kind == "multilabel":
        separator = _part_separator(known[label]) if label in known else None
    found = kind or (_kind(known[label], separator) if label in known else "classification")
    used = {*text, label, *ids}
    return Guess(
        text=list(text),
        label=label,
        id=next((name for name in ids if _names_rows(name, known)), None),
        kind=found,
        separator=separator if found == "multilabel" else None,
        group=[name for name, column in known.items() if name not in used and _may_be_group(column)],
        other_texts=[name for name in texts if name not in text],
        other_labels=[
            name for name, column in known.items() if name not in used and column.likeness_to_label() >= LIKE_A_LABEL
        ],
        other_kind="regression" if found == "classification" and label in known and known[label].is_order else None,
    )


def _texts(columns: Mapping[str, Column], names: Sequence[str]) -> list[str]:
    """Choose the column of the text, or two that are a pair by their names."""
    pairs = [
        (one, two) for at, one in enumerate(names) for two in names[at + 1 :] if _is_pair(columns[one], columns[two])
    ]
    if pairs:
        return list(pairs[0])
    if len(names) == 2 and all(name.isdecimal() for name in names):  # without names, two texts are a pair
        return list(names)
    return [max(names, key=lambda name: columns[name].likeness_to_text())] if names else []


def _is_pair(one: Column, two: Column) -> bool:
    """Return whether two names differ as those of a pair do: "text1" and "text2", "sentence_A" and "sentence_B"."""
    first, second = one.words, two.words
    differing = [pair for pair in zip(first, second, strict=False) if pair[0] != pair[1]]
    if (
        len(first) == len(second)
        and differing
        and differing[0] in (("1", "2"), ("a", "b"), ("0", "1"), ("left", "right"))
    ):
        return len(differing) == 1 and not one.name.isdecimal()
    return any(words[0] in first and words[1] in second for words in PAIRS if words[0] not in second)


def _names_rows(name: str, columns: Mapping[str, Column]) -> bool:
    """Return whether ids are those of rows: not pandas' index, nor of one text of a pair."""
    of_one_text = any(_is_pair(columns[one], columns[two]) for one in columns for two in columns if name in (one, two))
    return bool(name.strip()) and not name.startswith("Unnamed") and not of_one_text


def _part_separator(column: Column) -> str | None:
    """Return what separates several labels in a cell: such parts come back in cells that differ."""
    if not column.is_written or column.holds_lists:
        return None
    for separator in PART_SEPARATORS:
        several = [text for text in column.texts if separator in text]
        if separator == "," and any(GROUPED_NUMBER.fullmatch(text) for text in several):
            continue
        if len(several) < max(2, 0.05 * len(column.texts)):
            continue
        parts = Counter(part.strip() for text in column.texts for part in text.split(separator) if part.strip())
        short = all(len(part.split()) <= 4 and len(part) <= 40 for part in parts)
        shared = sum(count > 1 for count in parts.values()) >= 0.5 * len(parts)
        if short and shared and len(parts) <= MOST_PARTS and len(parts) < sum(parts.values()) / 2:
            return separator
    return None


def _kind(column: Column, separator: str | None) -> str:
    if column.holds_lists or separator is not None:
        return "multilabel"
    spellings = {_plain(text) for text in column.counts}
    if spellings in YES_OR_NO and len({label_key(text) for text in column.counts}) == 2:
        return "binary"
    if column.numbers is None or (column.is_whole and len(set(column.numbers)) <= MOST_WHOLE_NUMBERS):
        return "classification"
    return "regression"


def _plain(text: str) -> str:
    number = parse_number(text)
    return text.casefold() if number is None or number != int(number) else str(int(number))


def _may_be_group(column: Column) -> bool:
    """Return whether rows share a name: of who wrote them, of what they are about."""
    return not GROUPS.isdisjoint(column.words) and not column.is_constant and not column.all_differ
