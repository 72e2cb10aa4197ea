"""A column of a file, and what it looks like by its name and cells. All limits are our choice."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from multitask.settings.kinds import parse_number

__all__ = ["GROUPS", "MOST_WHOLE_NUMBERS", "Column"]

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
WORDS_OF_A_TEXT, LENGTH_OF_A_TEXT = 2, 25
MOST_CLASSES, MOST_WHOLE_NUMBERS = 100, 10
# A column is what so large a share of its cells is: a stray number makes texts no less texts.
NEARLY_ALL = 0.95
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
