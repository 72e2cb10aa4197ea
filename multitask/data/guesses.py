"""Guess from a sample of a file's rows which column is what, and which kind of task they make.

All of it is our choice, and a guess: names first (those that public data sets use), then what the cells hold.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from multitask.settings.kinds import label_key, parse_number

__all__ = ["Column", "Guess", "guess"]

TEXTS = {
    *("text", "sentence", "review", "message", "comment", "content", "body", "tweet", "title", "headline", "post"),
    *("description", "question", "query", "document", "utterance", "premise", "hypothesis", "answer", "passage"),
    *("abstract", "summary", "string", "phrase", "sms", "email", "news", "article"),
}
# Names that say no more than that it is a label.
PLAIN_LABELS = {"label", "labels", "target"}
LABELS = PLAIN_LABELS | {
    *("class", "classes", "category", "categories", "sentiment", "emotion", "emotions"),
    *("rating", "ratings", "stars", "score", "similarity", "topic", "topics", "intent", "tag", "tags", "polarity"),
    *("gold", "quality", "duplicate", "toxic", "spam", "y", "grade", "relevance"),
}
IDS = {"id", "idx", "index", "uid", "guid", "uuid", "key", "number", "nr", "no", "row"}
GROUPS = {"id", "user", "author", "group", "customer", "product", "qid", "speaker"}
PAIRS = [("premise", "hypothesis"), ("question", "sentence"), ("question", "answer"), ("query", "document")]
PAIRS += [("query", "passage"), ("question", "passage"), ("text", "hypothesis")]
YES_OR_NO = [{"0", "1"}, {"no", "yes"}, {"n", "y"}, {"false", "true"}, {"-1", "1"}, {"neg", "pos"}]
YES_OR_NO += [{"negative", "positive"}, {"ham", "spam"}]
WORDS_OF_A_TEXT, LENGTH_OF_A_TEXT = 2, 25
MOST_CLASSES, MOST_WHOLE_NUMBERS = 100, 10
# A column is what so large a share of its cells is: a stray number makes texts no less texts.
NEARLY_ALL = 0.95
MOST_PARTS = 200
# What both a name and few different cells make.
LIKE_A_LABEL = 5.0
PART_SEPARATORS = (";", "|", ",")
# 1.234,5 is one number.
GROUPED_NUMBER = re.compile(r"\s*[+-]?\d{1,3}(?:\.\d{3})+,\d+\s*")
# Fewer rows than this tell nothing of a column whose cells all differ.
FEW = 4


@dataclass(frozen=True)
class Column:
    """A column's name and cells, those that are missing left out."""

    name: str
    cells: Sequence[Any]

    @cached_property
    def texts(self) -> list[str]:
        """The cells as text."""
        return [cell if isinstance(cell, str) else str(cell) for cell in self.cells]

    @cached_property
    def counts(self) -> Counter[str]:
        """Cells by their text."""
        return Counter(text.strip() for text in self.texts)

    @cached_property
    def words(self) -> list[str]:
        """The words of the name: "is_duplicate", "isDuplicate" and "Is duplicate" have two."""
        parts = re.sub(r"([a-z])([A-Z])", r"\1 \2", self.name)
        return re.findall(r"[a-z]+|\d+", parts.casefold())

    @cached_property
    def numbers(self) -> list[float] | None:
        """The cells as numbers, with decimal points or commas; None unless nearly all are numbers."""
        found = [parse_number(text.strip().replace(",", ".")) for text in self.texts]
        numbers = [number for number in found if number is not None]
        return numbers if numbers and len(numbers) >= NEARLY_ALL * len(found) else None

    @property
    def is_whole(self) -> bool:
        """Whether all numbers are whole."""
        return self.numbers is not None and all(number == int(number) for number in self.numbers if abs(number) < 1e15)

    @property
    def is_order(self) -> bool:
        """Whether there are more than two whole numbers, and nothing else."""
        return self.is_whole and len(self.counts) > 2 and len(self.numbers or ()) == len(self.cells)

    @property
    def all_differ(self) -> bool:
        """Whether no cell is there twice."""
        return len(self.counts) == len(self.cells)

    @property
    def is_constant(self) -> bool:
        """Whether there is nothing to tell apart."""
        return len(self.counts) < 2

    @property
    def holds_lists(self) -> bool:
        """Whether nearly all cells are lists, or spelled as such."""
        spelled = sum(text.strip()[:1] + text.strip()[-1:] == "[]" for text in self.texts)
        return bool(self.cells) and spelled >= NEARLY_ALL * len(self.cells)

    @property
    def is_id(self) -> bool:
        """Whether it numbers or names the rows, such as pandas' index, which has no name."""
        named = not self.words or self.words == ["unnamed", "0"] or self.words[-1] in IDS
        counting = self.is_whole and len(self.cells) >= FEW and self._counts_up()
        return (named and self.all_differ) or counting

    def _counts_up(self) -> bool:
        """Whether each number is one more than that before, but for rows that the sample may lack."""
        numbers = sorted(self.numbers or [])
        return self.all_differ and numbers[-1] - numbers[0] < 20 * len(numbers) and numbers[0] in (0.0, 1.0)

    @property
    def is_written(self) -> bool:
        """Whether the cells are strings that are no numbers."""
        strings = sum(isinstance(cell, str) for cell in self.cells)
        return bool(self.cells) and self.numbers is None and strings >= NEARLY_ALL * len(self.cells)

    @cached_property
    def mean_words(self) -> float:
        """Words of a cell."""
        return sum(len(text.split()) for text in self.texts) / len(self.texts)

    @property
    def is_text(self) -> bool:
        """Whether the cells are sentences, or look like them."""
        return self.is_written and (
            self.mean_words >= WORDS_OF_A_TEXT or sum(map(len, self.texts)) >= LENGTH_OF_A_TEXT * len(self.texts)
        )

    def likeness_to_label(self) -> float:
        """Say how much it looks like a label: above 0 if it may be one."""
        named = any(word in LABELS for word in self.words) or self.words[:1] in (["is"], ["has"])
        exact = len(self.words) == 1 and named
        score = (
            4.0 * exact
            + (exact and self.words[0] in PLAIN_LABELS)
            + 3.0 * named
            - 3.0 * (not named and not {*self.words}.isdisjoint(TEXTS | IDS | GROUPS))
        )
        if self.is_constant or self.is_id:
            return -9.0
        if self.holds_lists:
            return score + 2
        few = len(self.counts) <= max(2, min(MOST_CLASSES, len(self.cells) // 2))
        if few:
            return score + 2 + (1 if len(self.counts) <= MOST_WHOLE_NUMBERS else 0) - (2 if self.is_text else 0)
        if self.numbers is not None:
            return score + 0.5
        return score - 4

    def likeness_to_text(self) -> float:
        """Say how much it looks like a text."""
        named = any(word in TEXTS for word in self.words)
        if not self.is_written:
            return -9.0
        return (
            min(self.mean_words, 30.0)
            + 10.0 * named * (self.mean_words >= 1)
            - 5.0 * (len(self.counts) < len(self.cells) / 10)
        )


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
        id=next((name for name in ids if name.strip() and not name.startswith("Unnamed")), None),
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
