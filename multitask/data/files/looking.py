"""What looking at all of a table tells: separator, quoting, separators at the end of rows, header, decimal sign.

Quoting is decided for the whole file. There is none if every line then has the header's width and the quoted reading
fails, or joins lines with tabs in them (the field's TSVs: GLUE, MRPC); else it is CSV's. Where both readings hold and
their rows differ, nobody but the user can know.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from multitask.data.files.cells import CellRow, cell_rows, split
from multitask.data.files.plain_text import KNOWN
from multitask.data.files.rows import Line
from multitask.errors import DataError
from multitask.settings.checks import shown
from multitask.settings.format import Format
from multitask.settings.kinds import parse_number

__all__ = ["COMMA_NUMBER", "decimal_of", "first_row_names_columns", "separator_and_quoting"]

COMMA_NUMBER = re.compile(r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]{1,3})?")
# 1,234 may be either.
THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
# A column's name has at most so many words.
MAX_WORDS = 4
MAX_NAME = 40
# Rows to compare the first with.
ROWS = 200


@dataclass
class _Counts:
    """What the rows of a file are like at one separator.

    :param unnamed: 1 if the first row may be like the others, and is counted with them; else 0.
    :param width: the first row's cells, read with quoting.
    :param plain_width: the same without.
    :param lines: that are not empty, after the first.
    :param plain: of these with plain_width cells, read without quoting.
    :param plain_trailing: of these with a separator more, at the end.
    :param rows: read with quoting; good and trailing of these as plain and plain_trailing of lines.
    :param joined: rows of more than one line.
    :param first_joined: the line of the first.
    :param swallowed: rows of lines each of which has the width of a row.
    :param doubled: whether a cell in quotes holds a quote, as only a writer of CSV spells it.
    """

    separator: str
    unnamed: int
    width: int
    plain_width: int
    lines: int = 0
    plain: int = 0
    plain_trailing: int = 0
    rows: int = 0
    good: int = 0
    trailing: int = 0
    joined: int = 0
    first_joined: int = 0
    swallowed: int = 0
    doubled: bool = False

    @property
    def fits_plain(self) -> bool:
        """Whether each line is a row without quoting."""
        return self.lines in (self.plain, self.plain_trailing + self.unnamed)

    @property
    def fits(self) -> bool:
        """Whether all rows have one width with quoting, none being at fault."""
        return self.rows in (self.good, self.trailing + self.unnamed)

    @property
    def share(self) -> float:
        """The share of rows of the first's width, in the better reading."""
        quoted = max(self.good, self.trailing) / max(self.rows, 1)
        return max(quoted, max(self.plain, self.plain_trailing) / max(self.lines, 1))


def separator_and_quoting(
    name: str,
    lines: Callable[[], Iterator[Line]],
    separators: Sequence[str],
    format: Format,
    *,
    named: bool,
    plain_names: bool,
) -> tuple[str, str, bool, float]:
    """Return separator, quoting, whether rows end with a separator more than the first, and the share of good rows.

    :param lines: reads the file anew.
    :param separators: those that it may be; of several the one at which most rows have one width, of these the widest.
    :param named: the first row names the columns.
    :param plain_names: it does so too where quotes are part of a name.
    :raises DataError: where quoting can't be told.
    """
    found = [_count(lines(), separator, named) for separator in separators]
    best = max(found, key=lambda counts: (counts.share, counts.width))
    quoting = format.quoting or _quoting(name, best, format, plain_names)
    good, trailing, all_of = (
        (best.good, best.trailing, best.rows) if quoting == "double" else (best.plain, best.plain_trailing, best.lines)
    )
    return best.separator, quoting, good <= best.unnamed < trailing + best.unnamed, max(good, trailing) / max(all_of, 1)


def _count(lines: Iterator[Line], separator: str, named: bool) -> _Counts:
    first = next(line for line in lines if line[1].strip())
    plain_width = first[1].count(separator) + 1
    cells = split(first[1], separator)
    counts = _Counts(separator, int(not named), len(cells) if isinstance(cells, list) else plain_width, plain_width)

    def observed() -> Iterator[Line]:
        for number, line in lines if named else chain([first], lines):
            if line:
                counts.lines += 1
                width = line.count(separator) + 1
                counts.plain += width == plain_width
                counts.plain_trailing += width == plain_width + 1 and line.rstrip(" ").endswith(separator)
            yield number, line

    for row in cell_rows(observed(), separator, "double"):
        counts.rows += 1
        if isinstance(row.cells, str):
            continue
        counts.good += len(row.cells) == counts.width
        counts.trailing += len(row.cells) == counts.width + 1 and not row.cells[-1].strip()
        if row.more:
            counts.joined += 1
            counts.first_joined = counts.first_joined or row.line
            counts.swallowed += all(line.count(separator) + 1 == plain_width for line in (row.text, *row.more))
        elif not counts.doubled and '""' in row.text:
            spelled = ('"' + cell.replace('"', '""') + '"' for cell in row.cells if '"' in cell)
            counts.doubled = any(cell in row.text for cell in spelled)
    return counts


def _quoting(name: str, counts: _Counts, format: Format, plain_names: bool) -> str:
    by_tabs = counts.separator == "\t" and counts.plain_width > 1
    if plain_names and counts.fits_plain:
        if not counts.joined:
            return "double" if counts.fits else "none"
        # A cell over lines would have to hold just as many tabs as makes each of its lines look like a row.
        if by_tabs and not (counts.fits and counts.doubled):
            return "none"
        if counts.plain_width > 1 and not counts.fits:
            return "none"
    elif not (plain_names and by_tabs and counts.swallowed):
        return "double"
    raise DataError(
        f"{name}:{counts.first_joined}: {format.key}.quoting must be double (a cell in quotes goes on over lines, which"
        f" makes {counts.rows} rows) or none (each line is a row, which makes {counts.lines}): the file can be read"
        " either way"
    )


def first_row_names_columns(rows: Iterable[CellRow]) -> bool | None:
    """Return whether a table's first row names its columns; None where nothing tells.

    It does not if one of its cells is blank (but for the first, which pandas leaves so over its index), long, or again
    below in its column. Else it does if one is a usual name, or if it counts the columns, as pandas writes them without
    names: then a text below is under a number. It does not if one is another number, or there twice.
    """
    some = [row.cells for row in islice(rows, ROWS) if isinstance(row.cells, list)]
    if not some:
        return False
    names, *below = ([cell.strip() for cell in cells] for cells in some)
    while len(names) > 1 and not names[-1]:
        names.pop()
    filled = names[1:] if len(names) > 1 and not names[0] else names
    counts = any(filled == [str(number + first) for number in range(len(filled))] for first in (0, 1))
    texts = any(not any(map(_is_number, column)) for column in zip(*below, strict=False))
    if counts and texts and len(filled) > 1:
        return True
    if not all(map(_may_be_name, filled)):
        return False
    if any(cell == cells[place] for cells in below for place, cell in enumerate(names[: len(cells)]) if cell):
        return False
    if any(cell.casefold() in KNOWN for cell in filled):
        return True
    return False if len(set(filled)) < len(filled) else None


def _may_be_name(cell: str) -> bool:
    return 0 < len(cell) <= MAX_NAME and len(cell.split()) <= MAX_WORDS and not _is_number(cell)


def _is_number(cell: str) -> bool:
    return parse_number(cell) is not None or COMMA_NUMBER.fullmatch(cell) is not None


def decimal_of(name: str, cells: Iterable[tuple[int, str]], column: str, format: Format) -> str:
    """Return the decimal sign of a column's numbers.

    :param cells: each with its line.
    :raises DataError: for a column with both signs, or whose commas may part thousands.
    """
    point = comma = thousands = None
    for line, cell in cells:
        text = cell.strip()
        if "," in text and COMMA_NUMBER.fullmatch(text):
            if THOUSANDS.fullmatch(text):
                thousands = thousands or (line, text)
            else:
                comma = comma or (line, text)
        elif "." in text and point is None and parse_number(text) is not None:
            point = line, text
    if point is not None and (comma or thousands) is not None:
        line, text = comma or thousands or point
        raise DataError(
            f"{name}:{line}: {format.key}.decimal must be ',' or '.': column {column!r} has both, {shown(text)} here"
            f" and {shown(point[1])} on line {point[0]}"
        )
    if comma is None and thousands is not None:
        raise DataError(
            f"{name}:{thousands[0]}: {format.key}.decimal must be ',' or '.': the comma of {shown(thousands[1])} in"
            f" column {column!r} may be a decimal sign, or part thousands"
        )
    return "," if comma is not None else "."
