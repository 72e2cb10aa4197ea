"""The texts of some files, each once: lines of plain text, or cells of the text columns of a table."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from multitask.data.bad_rows import BadRow
from multitask.data.examples import iter_examples
from multitask.data.files.dialects import Wanted
from multitask.data.files.first_bytes import Opened, opened
from multitask.data.files.first_line import names_columns
from multitask.data.files.formats import is_pipe
from multitask.data.files.lines import encoding_of, numbered_lines, undecoded
from multitask.data.files.plain_text import looks_like_json
from multitask.data.files.rows import Line
from multitask.data.labels import check_text
from multitask.errors import ConfigError, DataError
from multitask.inspection.peeking import peek
from multitask.settings.checks import listed, shown
from multitask.settings.format import Format
from multitask.settings.task import Task

__all__ = ["Texts", "read_texts"]

TABLE_ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")


@dataclass
class Texts:
    """Texts that differ, in the order of the files; how many others were left out.

    :param texts: of those that are equal but for whitespace, the first.
    :param empty: rows, cells or lines without text.
    :param repeated: that were equal to an earlier one.
    """

    texts: list[str] = field(default_factory=list)
    empty: int = 0
    repeated: int = 0

    def append(self, row: BadRow, /) -> None:
        """Count a row without text; DataError for one that is at fault."""
        if not row.missing:
            raise DataError(str(row))
        self.empty += 1

    def __str__(self) -> str:
        left_out = f"{self.empty:,} empty and {self.repeated:,} equal to another left out"
        return f"{len(self.texts):,} text{'' if len(self.texts) == 1 else 's'}; {left_out}"


def read_texts(files: Sequence[str | Path], columns: Sequence[str] = (), format: Format | None = None) -> Texts:
    """Read all texts of files.

    A file is a table if it is parquet or Excel, if its name ends in csv, tsv, json, jsonl or ndjson (also .gz), or if
    its first row names one of the columns; any other is plain text, one text a line.

    :param columns: of the text; of a table those that it has are read, each cell a text by itself.
    :param format: how the files are written, where looking does not tell.
    :raises ConfigError: for no files, or a table without columns.
    :raises DataError: for a file that can't be read, has none of the columns, or holds a cell that is no text; for
        fewer than two texts that differ.
    """
    format, found = format or Format(), Texts()
    if not files:
        raise ConfigError("files must name at least one file of text, got none")
    seen: set[str] = set()
    for path in files:
        if is_pipe(path):
            raise DataError(f"{path} must be a file, which is read several times, got a pipe")
        for text in _texts_of(path, columns, format, found):
            key = " ".join(text.split())
            if key in seen:
                found.repeated += 1
            else:
                seen.add(key)
                found.texts.append(text)
    if len(found.texts) < 2:
        raise DataError(
            f"{listed(map(str, files))} must hold two texts that differ, one of them to be held out, got {found}"
        )
    return found


def _texts_of(path: str | Path, columns: Sequence[str], format: Format, skipped: Texts) -> Iterator[str]:
    there = _columns_of(path, columns, format)
    if there is None:
        return _lines_of(path, format, skipped)
    own = [column for column in dict.fromkeys(columns) if column in there]
    if not columns:
        raise ConfigError(f"{path}: text must name the column of the text, one of {listed(there)}, got none")
    if not own:
        raise DataError(
            f"{path} must have a column of the text, {' or '.join(map(shown, columns))},"
            f" got {listed(map(shown, there))}"
        )
    return _cells_of(path, own, format, skipped)


def _columns_of(path: str | Path, wanted: Iterable[str], format: Format) -> list[str] | None:
    """Return the columns of a table, of one that the first row tells those that are wanted; None for plain text."""
    with opened(path) as file:
        if file.what == "text" and Path(str(path).lower().removesuffix(".gz")).suffix not in TABLE_ENDINGS:
            first = next((line for _, line in _lines(path, file, format) if line.strip()), "")
            named = [column for column in wanted if names_columns(first, format, Wanted([column]))]
            if named or not wanted or not looks_like_json(first):
                return named or None
    return peek(path, format).columns


def _cells_of(path: str | Path, columns: Sequence[str], format: Format, skipped: Texts) -> Iterator[str]:
    for column in columns:  # each by itself: a row may lack one of its texts
        task = Task(name="text", text=column, label=f"label of {column}", id=None, format=format)
        for example in iter_examples(path, task, bad_rows="skip", skipped=skipped):
            yield example.texts[0]


def _lines_of(path: str | Path, format: Format, skipped: Texts) -> Iterator[str]:
    task = Task(name="text", text="1", label="2", id=None)
    with opened(path) as file:
        for number, line in _lines(path, file, format):
            fault = undecoded(line, format) or check_text(task, "", line, frozenset())
            if fault is None:
                yield line
            else:
                skipped.append(
                    BadRow(str(path), number, fault.column, fault.value, fault.reason, missing=fault.missing)
                )


def _lines(path: str | Path, file: Opened, format: Format) -> Iterator[Line]:
    encoding = encoding_of(str(path), file.stream.read(4), format)
    file.stream.seek(0)
    return numbered_lines(str(path), file.stream, encoding, format)
