"""Which texts are read from files of several kinds."""

import gzip
import json
from pathlib import Path

import pytest

from multitask import ConfigError, DataError
from multitask.pretraining.texts import read_texts
from multitask.settings.format import Format


def write(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path


def test_plain_text_is_one_text_a_line_whatever_is_in_it(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.txt", 'a, b\n\n"quoted\ttab\n  \nid\tsentence\n{"text": 1}\na,  b\nNone\n')
    found = read_texts([path])
    assert found.texts == ["a, b", '"quoted\ttab', "id\tsentence", '{"text": 1}', "None"]
    assert (found.empty, found.repeated) == (2, 1)


def test_cells_of_each_text_column_are_texts_by_themselves(tmp_path: Path) -> None:
    singles = write(tmp_path / "singles.csv", "id,sentence,label\n1,one text,0\n2,,1\n3,one  text,1\n")
    pairs = write(tmp_path / "pairs.tsv", "id\ts1\ts2\n1\tfirst\tsecond\n2\tone text\t\n3\tthird\tfourth\n")
    found = read_texts([singles, pairs], ["sentence", "s1", "s2"])
    assert found.texts == ["one text", "first", "third", "second", "fourth"]
    assert (found.empty, found.repeated) == (2, 2)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.data"])
def test_objects_and_files_of_other_names_are_tables_by_their_columns(name: str, tmp_path: Path) -> None:
    content = "\n".join(json.dumps({"text": text, "n": 1}) for text in ("one", "two"))
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())
    assert read_texts([path], ["text"]).texts == ["one", "two"]


def test_a_header_makes_a_table_of_any_file(tmp_path: Path) -> None:
    table = write(tmp_path / "table.txt", "id;text\n1;one\n2;two\n")
    plain = write(tmp_path / "plain.txt", "three\nfour, as prose\n")
    single = write(tmp_path / "single.txt", "text\nfive\nsix and more\n")
    assert read_texts([table, plain, single], ["text"]).texts == [
        *("one", "two", "three", "four, as prose", "five", "six and more"),
    ]


def test_parquet_and_encodings(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"text": ["one", None, "two"]})
    parquet.write_table(table, tmp_path / "rows")
    found = read_texts([tmp_path / "rows"], ["text"])
    assert (found.texts, found.empty) == (["one", "two"], 1)
    old = tmp_path / "old.txt"
    old.write_bytes("café\ntea".encode("cp1252"))
    assert read_texts([old], format=Format(encoding="cp1252")).texts == ["café", "tea"]


@pytest.mark.parametrize(
    ("content", "name", "columns", "message"),
    [
        ("a,b\n1,2\n3,4\n", "x.csv", [], r"x.csv: text must name the column of the text, one of a, b, got none"),
        ("a,b\n1,2\n3,4\n", "x.csv", ["c", "d"], r"x.csv must have a column of the text, 'c' or 'd', got 'a', 'b'"),
        ("one\none\n \n", "x.txt", [], r"x.txt must hold two texts that differ.*got 1 text; 1 empty and 1 equal"),
        ("", "x.txt", [], "must hold two texts that differ"),
        ("one\ntwo\0\n", "x.txt", [], r"x.txt:2: the row must not contain NUL"),
        ("a,b\n1,2\n3,4,5\n", "x.csv", ["a"], r"x.csv:3: the row must have 2 fields like the header, not 3"),
    ],
)
def test_what_is_no_text_is_refused(content: str, name: str, columns: list[str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises((ConfigError, DataError), match=message):
        read_texts([path], columns)


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"one\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"x.txt:2: the row must be UTF-8 \(byte 4 of the line is 0xe9\)"):
        read_texts([path])
    with pytest.raises(DataError, match="missing.txt can't be read: No such file"):
        read_texts([tmp_path / "missing.txt"])
    with pytest.raises(ConfigError, match="^files must name at least one file of text, got none$"):
        read_texts([])
