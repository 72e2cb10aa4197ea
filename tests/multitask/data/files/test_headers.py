"""Tables without a header, whose columns are numbers."""

import io
from pathlib import Path
from typing import Any

import pytest

from multitask.data.examples import iter_examples
from multitask.data.files.dialects import Wanted, look_at
from multitask.data.files.formats import read_rows
from multitask.errors import DataError
from multitask.settings.format import Format
from multitask.settings.task import Task

MOOD = Task(name="mood", text="text", label="label", labels=("neg", "pos"))
NUMBERED = Task(name="mood", text=2, label=1, labels=("neg", "pos"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "header"),
    [
        ("pos\tgood film\nneg\tbad film\npos\tfine\n", False),
        ("label\ttext\npos\tgood film\nneg\tbad film\n", True),
        ("pos\tA film that takes its time to say so\nneg\tbad\n", False),
        ("1\tgood\n0\tbad\n", False),
        ("pos,good\nneg,bad\npos,fine\n", False),
        ("label;text\npos;good\nneg;bad, I think\n", True),
    ],
)
def test_columns_by_number(tmp_path: Path, content: str, header: bool, put: Any) -> None:
    path = put(tmp_path, content, "rows.csv")
    dialect = look_at(path, wanted=Wanted(["2", "1"]))
    assert dialect.header is header
    rows = list(read_rows(path, ["2", "1"], None))
    assert (rows[0].line, len(rows)) == (1 + header, content.count("\n") - header)
    turned = list(read_rows(path, ["2", "1"], None, format=Format(header=not header)))
    assert len(turned) == len(rows) + (1 if header else -1)


def test_no_header(tmp_path: Path, put: Any, found: Any, refusal: Any) -> None:
    path = put(tmp_path, "pos\tgood film\nneg\tbad film\npos\tfine\n", "rows.txt")
    assert found(path, NUMBERED) == [("good film", 1), ("bad film", 0), ("fine", 1)]
    assert refusal(path) == "rows.txt:1: the columns must include 'text', 'label', got 'pos', 'good film'"
    said = Task(name="mood", text="text", label="label", labels=("neg", "pos"), format=Format(header=False))
    assert "must be numbers, since tasks.mood.format.header is false, got 'text', 'label'" in refusal(path, said)
    beyond = Task(name="mood", text="3", label="1", labels=("neg", "pos"))
    assert "the columns must include '3', got 'pos', 'good film'" in refusal(path, beyond)


def test_a_first_row_that_may_be_either_is_asked(tmp_path: Path, put: Any) -> None:
    path = put(tmp_path, "x\tgood film\ny\tbad film\n")
    with pytest.raises(DataError, match=r"mood.format.header must be true or false: the first row may name"):
        list(iter_examples(path, NUMBERED))
    assert look_at(path).header
    long = put(tmp_path, "x\tgood film\ny\tbad film\nx\tgood\n")
    assert [row.texts[0] for row in iter_examples(long, NUMBERED)] == ["good film", "bad film", "good"]


def test_no_header_for_prediction(tmp_path: Path, put: Any) -> None:
    def texts(content: str, name: str = "rows.txt", **format: Any) -> list[str]:
        task = Task(name="mood", text="2", label="1", labels=("neg", "pos"), format=Format(**format))
        return [row.texts[0] for row in iter_examples(put(tmp_path, content, name), task)]

    assert texts("pos\tgood\nneg\tbad\npos\tfine\n") == ["good", "bad", "fine"]
    assert texts("A good film.\nA bad one, I think.\n") == ["A good film.", "A bad one, I think."]
    assert texts("pos,good\nneg,bad\npos,fine\n", "rows.csv") == ["good", "bad", "fine"]
    with pytest.raises(DataError, match=r"rows.txt:1: tasks.mood.format.header must be set, or tasks.mood.format.sep"):
        texts("pos,good\nneg,bad\n")
    assert texts("pos,good\nneg,bad\n", header=False) == ["good", "bad"]
    stream = iter_examples(io.BytesIO(b"pos\tgood\n"), NUMBERED)
    with pytest.raises(DataError, match=r"<stream>: tasks.mood.format.header must be true or false to read columns"):
        list(stream)
