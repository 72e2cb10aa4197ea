"""Tell plain text from a table or JSON whose first line lacks a task's columns.

Prediction takes plain text, one sentence a line. A table with other column names must not pass as such: its header
and ids would be labelled like sentences. The rule, for files not called .csv, .tsv, .json, .jsonl or .ndjson:

- JSON: the first line opens an object, or a list of objects (``{"``, ``[{``, or a bracket alone).
- A header: its cells, with ``,`` ``;`` ``|`` or tabs between, are names (one to three words) and all differ, and

  - each is a usual column name (KNOWN, or the task's own; in any capitals), or
  - one of several is usual, and no separator has a blank beside it, as it would in English prose, or
  - there are several, the next lines have as many cells, and either no separator has a blank beside it, or all are
    single words and one is usual.

All else is plain text, including sentences with commas in them. Where a task's columns are numbers, a table without a
header is told from it by its tabs, or by ``[tasks.NAME.format]`` (first_line.py).
"""

import re
from collections.abc import Callable, Iterable, Sequence

__all__ = ["FOLLOWING", "KNOWN", "looks_like_header", "looks_like_json"]

KNOWN = frozenset(
    {
        *("id", "idx", "index", "uid", "guid", "label", "labels", "score", "rating", "sentiment", "similarity"),
        *("text", "text1", "text2", "texts", "sentence", "sentence1", "sentence2", "sentences"),
        *("question", "question1", "question2", "is_duplicate"),
    }
)
# Lines to look at after the first.
FOLLOWING = 3
SEPARATORS = ",;|\t"
NAME = re.compile(r"[^\W\d]\w*(?:[ .-]\w+){0,2}")
JSON = re.compile(r'\s*(?:\{\s*(?:"|\}|$)|\[\s*(?:\{|$))')


def looks_like_json(line: str) -> bool:
    """Return whether a line starts an object or a list of objects, well-formed or not."""
    return JSON.match(line) is not None


def looks_like_header(
    line: str,
    following: Callable[[], Iterable[str]],
    columns: Iterable[str],
    split: Callable[[str, str], Sequence[str] | None],
) -> bool:
    """Return whether a line names columns, by the rule above.

    :param following: returns the next lines that are not blank; called only where they decide, since a pipe may not
        have them yet.
    :param columns: the task's own.
    :param split: returns the cells of a line at a separator, or None if a quote is misplaced.
    """
    known = KNOWN | {column.casefold() for column in columns}
    for separator in SEPARATORS:
        cells = split(line, separator)
        if cells is None:
            continue
        # pandas writes no name for its index.
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
