"""Encodings: UTF-8, or what a byte-order mark or a setting says; never guessed."""

from pathlib import Path
from typing import Any

import pytest

from multitask.data.examples import iter_examples
from multitask.errors import DataError
from multitask.settings.format import Format
from multitask.settings.task import Task

MOOD = Task(name="mood", text="text", label="label", labels=("neg", "pos"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_tells_the_encoding(
    tmp_path: Path, encoding: str, put: Any, found: Any, refusal: Any
) -> None:
    path = put(tmp_path, "text\tlabel\ncafé 😀\tpos\nЖ\tneg\n".encode(encoding))
    assert found(path) == [("café 😀", 1), ("Ж", 0)]
    other = Task(name="mood", text="text", label="label", format={"encoding": "cp1252"})  # type: ignore[arg-type]
    due = encoding.removesuffix("-sig")
    assert f"tasks.mood.format.encoding must be {due}, as the file's byte-order mark says" in refusal(path, other)


def test_another_encoding_has_to_be_said(tmp_path: Path, put: Any, found: Any, refusal: Any) -> None:
    lines = ["text;label", *["good;pos"] * 9000, "café;pos", "bad;neg"]
    path = put(tmp_path, "\n".join(lines).encode("cp1252"), "rows.csv")
    assert refusal(path) == (
        "rows.csv:9002: column 'text' must be UTF-8 (byte 4 of the line is 0xe9), or tasks.mood.format.encoding say"
        " what else, got 'caf\\udce9'"
    )
    said = Task(name="mood", text="text", label="label", labels=("neg", "pos"), format=Format(encoding="cp1252"))
    assert found(path, said)[-2:] == [("café", 1), ("bad", 0)]
    ascii_alone = Task(name="mood", text="text", label="label", format=Format(encoding="ascii"))
    assert refusal(path, ascii_alone) == (
        "rows.csv:9002: must be ascii, as tasks.mood.format.encoding says, got the byte 0xe9 at 81014 from the file's"
        " start"
    )


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_utf_8_is_not_read_as_another_encoding(
    tmp_path: Path, encoding: str, put: Any, found: Any, refusal: Any
) -> None:
    said = Task(name="mood", text="text", label="label", labels=("neg", "pos"), format=Format(encoding=encoding))
    path = put(tmp_path, "text;label\ncafé;pos\n", "rows.csv")
    due = f"tasks.mood.format.encoding must be utf-8, which the file is, got {encoding}"
    assert refusal(path, said).endswith(due)
    with pytest.raises(DataError, match=due):
        list(iter_examples(path, said))
    assert found(put(tmp_path, "text;label\ncafe;pos\n", "rows.csv"), said) == [("cafe", 1)]
    assert found(put(tmp_path, "text;label\ncafé;pos\nÃ©;pos".encode(encoding), "rows.csv"), said)[0] == ("café", 1)


def test_bytes_in_a_column_that_nobody_reads_are_a_fault_of_their_row(
    tmp_path: Path, put: Any, found: Any, refusal: Any
) -> None:
    path = put(tmp_path, b"text,label,town\ngood,pos,Caf\xe9\nbad,neg,x\n", "rows.csv")
    assert refusal(path).startswith("rows.csv:2: column 'town' must be UTF-8 (byte 13 of the line is 0xe9)")
    assert found(path, bad_rows="skip") == [("bad", 0)]
    header = put(tmp_path, b"text,label,caf\xe9\ngood,pos,x\n", "rows.csv")
    assert refusal(header).startswith("rows.csv:1: the header must be UTF-8 (byte 15 of the line is 0xe9)")


def test_the_line_of_a_row_over_lines_is_named(tmp_path: Path, put: Any, refusal: Any) -> None:
    path = put(tmp_path, b'text,label\n"good\ncaf\xe9\n",pos\nbad,neg\n', "rows.csv")
    assert "rows.csv:3: column 'text' must be UTF-8 (byte 4 of the line is 0xe9), or tasks.mood.format" in refusal(path)
