"""Whether a line that lacks a task's columns is plain text all the same, or the start of a table or of JSON.

Prediction takes plain text, one sentence a line. A table whose columns are named otherwise must not pass as
that: its header and ids would be labelled like sentences. The rule, for files not called .csv, .tsv or .jsonl:

- JSON: the first line opens an object, or a list of objects (``{"``, ``[{``, or a bracket alone).
- A header: its cells, with ``,`` ``;`` ``|`` or tabs between, are names (one to three words) and all differ, and

  - each is usual for a column (KNOWN, or the task's own; in any capitals), or
  - one of several is usual, and no separator has a blank beside it, as English prose would, or
  - several fall together with the next lines, which have as many cells: without blanks, or of single words one
    of which is usual.

All else is plain text: sentences with commas in them, too.
"""

import re
from collections.abc import Callable, Iterable, Sequence

__all__ = ["FOLLOWING", "looks_like_header", "looks_like_json"]

KNOWN = frozenset(
    {
        *("id", "idx", "index", "uid", "guid", "label", "labels", "score", "rating", "sentiment", "similarity"),
        *("text", "text1", "text2", "texts", "sentence", "sentence1", "sentence2", "sentences"),
        *("question", "question1", "question2", "is_duplicate"),
    }
)
# How many lines after the first are looked at.
FOLLOWING = 3
SEPARATORS = ",;|\t"
NAME = re.compile(r"[^\W\d]\w*(?:[ .-]\w+){0,2}")
JSON = re.compile(r'\s*(?:\{\s*(?:"|\}|$)|\[\s*(?:\{|$))')


def looks_like_json(line: str) -> bool:
    """Whether a line starts an object or a list of objects, be it well-formed or not."""
    return JSON.match(line) is not None


def looks_like_header(
    line: str,
    following: Callable[[], Iterable[str]],
    columns: Iterable[str],
    split: Callable[[str, str], Sequence[str] | None],
) -> bool:
    """Whether a line names columns, by the rule above.

    following: gives the next lines that are not blank; called only where they decide, since a pipe may not
    have them yet. columns: the task's own. split: the cells of a line, or None where they are not clear.
    """
    known = KNOWN | {column.casefold() for column in columns}
    for separator in SEPARATORS:
        cells = split(line, separator)
        if cells is None:
            continue
        # Pandas leaves the name of its index out.
        names = [cell.strip() for cell in (cells[1:] if len(cells) > 2 and not cells[0] else cells)]
        if not all(map(NAME.fullmatch, names)) or len(set(names)) < len(names):
            continue
        usual = [name.casefold() in known for name in names]
        if all(usual):
            return True
        if len(names) < 2 or (separator == "\t" and not any(usual)):  # two texts with a tab between are a pair
            continue
        tight = all(cell == cell.strip() for cell in cells)
        if tight and any(usual):
            return True
        if tight or (any(usual) and not any(" " in name for name in names)):
            widths = {len(split(other, separator) or ()) for other in following()}
            if widths == {len(cells)}:
                return True
    return False
