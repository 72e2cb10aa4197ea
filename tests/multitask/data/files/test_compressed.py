"""What a file is, by its first bytes: gzip of anything is read, other kinds are refused by what they are."""

import gzip
import io
import json
import os
import pickle
import sqlite3
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from multitask.data.examples import iter_examples, read_examples
from multitask.errors import DataError
from multitask.settings.task import Task

MOOD = Task(name="mood", text="text", label="label", labels=("neg", "pos"))
ROWS = [("good, really", "pos"), ("café", "neg")]
TEXTS = {
    "csv": 'text,label\n"good, really",pos\ncafé,neg\n',
    "tsv": "text\tlabel\ngood, really\tpos\ncafé\tneg\n",
    "ssv": "text;label\ngood, really;pos\ncafé;neg\n",
    "jsonl": "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS),
    "json": json.dumps([{"text": text, "label": label} for text, label in ROWS], indent=2),
}


def found(path: Path) -> list[tuple[str, int | float | None]]:
    return [(row.texts[0], row.label) for row in read_examples(path, MOOD).examples]


@pytest.mark.parametrize("kind", list(TEXTS))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("name", ["rows.{}", "rows.{}.gz", "rows"])
def test_gzip_of_each(tmp_path: Path, kind: str, encoding: str, name: str) -> None:
    """Field 13: by first bytes, whatever the name."""
    content = gzip.compress(TEXTS[kind].encode(encoding))
    path = tmp_path / name.format(kind)
    path.write_bytes(content)
    assert found(path) == [("good, really", 1), ("café", 0)]
    assert str(read_examples(path, MOOD).dialect).endswith(f"{encoding.upper()}, gzip")
    # A pipe can't be looked at twice, but its first bytes can.
    rows = iter_examples(io.BufferedReader(io.BytesIO(content)), MOOD, labelled=True)  # type: ignore[arg-type]
    assert [row.texts[0] for row in rows] == ["good, really", "café"]


def test_half_a_gzip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    whole = gzip.compress(os.urandom(1000).hex().encode())
    for content in (whole[:-20], whole[:20]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"rows.csv.gz must be a whole gzip file"):
            read_examples(path, MOOD)
    path.write_bytes(gzip.compress(TEXTS["csv"].encode())[:-8] + b"\0" * 8)
    with pytest.raises(DataError, match=r"rows.csv.gz can't be read: CRC check failed"):
        read_examples(path, MOOD)


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "x")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("rows.csv"))
    return buffer.getvalue()


def saved() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def database(folder: Path) -> bytes:
    with sqlite3.connect(folder / "rows.db") as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    return (folder / "rows.db").read_bytes()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (zipped("rows.csv"), "a zip archive"),
        (zipped("word/document.xml"), "a Word document"),
        (zipped("xl/workbook.bin"), r"a binary Excel file \(.xlsb\)"),
        (zipped("rows.csv")[:30], "a broken zip archive"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), r"an old Excel file \(.xls\)"),
        (pickle.dumps([1]), "a pickle"),
        (tarred(), "a tar archive"),
        (gzip.compress(tarred()), "a gzip of a tar archive"),
        (gzip.compress(zipped("x")), "a gzip of a zip archive"),
        (gzip.compress(gzip.compress(b"text")), "a gzip of a gzip"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (saved(), "a numpy array"),
        (b"<!DOCTYPE html>\n<html>", "an HTML page"),
        (b"BZh91AY&SY\xff\x00", "compressed by bzip2"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (None, "an SQLite database"),
    ],
)
@pytest.mark.parametrize("name", ["rows.csv", "rows.txt"])
def test_what_is_no_table_is_refused_by_what_it_is(tmp_path: Path, content: bytes | None, what: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(database(tmp_path) if content is None else content)
    with pytest.raises(
        DataError, match=f"{name} must be CSV, TSV, JSON, parquet, an Excel sheet or plain text, but is {what}"
    ):
        read_examples(path, MOOD)
    with pytest.raises(DataError, match=f"but is {what}"):
        list(iter_examples(path, MOOD))


def test_words_that_begin_like_another_kind_are_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("ORCs came.\nBZh is no word.\n", encoding="utf-8")
    assert [row.texts[0] for row in iter_examples(path, MOOD)] == ["ORCs came.", "BZh is no word."]


def test_a_pipe_with_a_name_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_text(TEXTS["ssv"], encoding="utf-8"))
    writer.start()
    assert [row.texts[0] for row in iter_examples(path, MOOD)] == ["good, really", "café"]
    writer.join()


def test_what_is_no_text_can_not_come_through_a_pipe() -> None:
    for content, what in ((b"PAR1....", "must be named as a file"), (pickle.dumps([1]), "but is a pickle")):
        with pytest.raises(DataError, match=what):
            list(iter_examples(io.BytesIO(content), MOOD))
