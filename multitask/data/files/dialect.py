"""How a file is written, and what is wanted of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from multitask.data.files.cells import split
from multitask.settings.checks import shown

__all__ = ["Dialect", "Wanted", "formats_note"]


@dataclass(frozen=True)
class Dialect:
    """How a file is written; ``str`` of it is one phrase.

    :param what: csv (any table in text), jsonl, json (an array of objects), plain, parquet or excel.
    :param separator: between the cells of a table; "" for other files.
    :param quoting: "double" or "none"; "" for files that are no table.
    :param decimal: decimal sign of the labels' numbers.
    :param header: whether the first row names the columns.
    :param trailing: whether each row but the header ends with one separator more.
    :param encoding: of a text; "" for parquet and Excel.
    :param compression: "gzip" or "".
    :param sheet: of an Excel file, if one is named.
    """

    what: str
    separator: str = ""
    quoting: str = ""
    decimal: str = "."
    header: bool = True
    trailing: bool = False
    encoding: str = "utf-8"
    compression: str = ""
    sheet: str | None = None

    SEPARATORS: ClassVar[dict[str, str]] = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}

    def __str__(self) -> str:
        sheet = "the first sheet" if self.sheet is None else f"the sheet {shown(self.sheet)}"
        name = self.SEPARATORS.get(self.separator, shown(self.separator))
        parts = {
            "csv": [f"{name} between cells", "quoting as in CSV" if self.quoting == "double" else "no quoting"],
            "jsonl": ["JSON lines"],
            "json": ["a JSON array"],
            "plain": ["plain text"],
            "parquet": ["parquet"],
            "excel": [f"Excel, {sheet}"],
        }[self.what]
        if self.what in ("csv", "excel"):
            parts.append("a header" if self.header else "no header")
        if self.trailing:
            parts.append("a separator at the end of each row")
        if self.decimal == ",":
            parts.append("decimal commas")
        return ", ".join([*parts, *filter(None, [self.encoding.upper(), self.compression])])

    def names(self, line: str) -> list[str]:
        """Return the names of the columns that a header has."""
        cells = split(line, self.separator, self.quoting)
        return [cell.strip() for cell in cells] if isinstance(cells, list) else [line]


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a file's rows.

    :param required: columns that the file must have.
    :param optional: a column that it may have.
    :param plain: if there is no header, take lines of this many texts with tabs between them; 0 for never. Files
        called .csv, .tsv or .jsonl are never plain, nor are those that plain_text.py takes for a table or JSON.
    :param label: the one of the required columns that holds labels.
    :param numbers: whether these are numbers.
    """

    required: Sequence[str] = ()
    optional: str | None = None
    plain: int = 0
    label: str | None = None
    numbers: bool = False

    @property
    def by_number(self) -> bool:
        """Whether all columns are numbers, as in a file without a header."""
        return bool(self.required) and all(column.isdecimal() for column in self.required)

    def place(self, column: str, names: Sequence[str]) -> int:
        """Return a column's place, by its name or else by its number."""
        return names.index(column) if column in names else int(column) - 1


def formats_note(task: str, dialects: Mapping[str, Dialect]) -> str:
    """Return one line about how a task's files are written, by split, if any; those that are alike are told once."""
    told: dict[str, list[str]] = {}
    for name, dialect in dialects.items():
        told.setdefault(str(dialect), []).append(name)
    phrases = "; ".join(f"{' and '.join(names)}: {phrase}" for phrase, names in told.items())
    return phrases and f"{task}: format of {phrases}"
