"""Rows of a data set that have the texts of another one: copies, and rows whose labels contradict each other."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from multitask.data.examples import Example

__all__ = ["Repeats", "find_repeats"]

SHOWN = 5


@dataclass(frozen=True)
class Repeats:
    """What repeats within a data set.

    :param duplicates: how many rows have texts and label of an earlier one.
    :param conflicts: how many rows have the texts of another one that has a different label.
    :param lines: of the first five such texts the lines of two rows with different labels.
    """

    duplicates: int = 0
    conflicts: int = 0
    lines: list[tuple[int, int]] = field(default_factory=list)


def find_repeats(examples: Iterable[Example]) -> Repeats:
    """Look for rows with equal texts, whitespace aside.

    A pair in the other order is another text here: what follows from what, or answers what, has an order, and its
    label may rightly differ. (Between train and dev, where ``shared_rows`` looks for leaks, it is the same.)
    """
    by_texts: dict[tuple[str, ...], list[Example]] = {}
    for example in examples:
        by_texts.setdefault(tuple(" ".join(text.split()) for text in example.texts), []).append(example)
    duplicates, conflicts, lines = 0, 0, []
    for rows in by_texts.values():
        if len(rows) == 1:
            continue
        duplicates += len(rows) - len({row.label for row in rows})
        other = next((row for row in rows if row.label != rows[0].label), None)
        if other is not None:
            conflicts += len(rows)
            lines.append((rows[0].line, other.line))
    return Repeats(duplicates, conflicts, lines[:SHOWN])
