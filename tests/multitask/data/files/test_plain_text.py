"""Plain text for prediction, and what must not pass as that: tables and JSON with other columns."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from multitask.data.examples import Example, iter_examples
from multitask.errors import DataError
from multitask.settings.task import Task

MOOD = Task(name="mood", text=("sentence",), label="mood", labels=("0", "1"))
SAME = Task(name="same", text=("sentence1", "sentence2"), label="same", kind="binary", labels=("0", "1"))
OTHER = Task(name="other", text=("a", "b"), label="same", kind="binary", labels=("0", "1"))


def read(content: str, task: Task = MOOD, **settings: Any) -> list[Example]:
    return list(iter_examples(io.BytesIO(content.encode()), task, **settings))


def put(folder: Path, content: str, name: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_plain_text_for_prediction(tmp_path: Path) -> None:
    path = put(tmp_path, 'Good, "really".\n\nIt is {odd}\n\n\n', "rows.txt")
    with pytest.raises(DataError, match=r"rows.txt:2: the row must not be blank, got ''"):
        list(iter_examples(path, MOOD))
    rows = list(iter_examples(path, MOOD, bad_rows="skip"))
    assert rows == [Example("1", ('Good, "really".',), None, 1), Example("3", ("It is {odd}",), None, 3)]
    pairs = list(iter_examples(io.BytesIO(b"p\tq\nc\td"), OTHER))
    assert [row.texts for row in pairs] == [("p", "q"), ("c", "d")]
    with pytest.raises(
        DataError, match="<stream>:2: the row must have 2 texts with tabs between them, not 1, got 'c'$"
    ):
        list(iter_examples(io.StringIO("p\tq\nc\n"), OTHER))
    assert [row.texts for row in iter_examples(io.StringIO("sentence\nx\n"), MOOD)] == [("x",)]
    assert list(iter_examples(io.StringIO(""), MOOD)) == []
    # A table with other columns is no plain text.
    with pytest.raises(DataError, match="rows.csv:1: the columns must include 'sentence', got 'id', 'text'$"):
        list(iter_examples(put(tmp_path, "id,text\n1,x\n", "rows.csv"), MOOD))
    with pytest.raises(DataError, match="<stream>:1: the columns must include 'sentence', got 'id', 'text'$"):
        list(iter_examples(io.StringIO("id\ttext\n1\tx\n"), MOOD))


def test_streaming_reads_no_further_than_asked() -> None:
    def endless() -> Any:
        yield b"sentence\n"
        while True:
            yield b"again\n"

    rows = iter_examples(endless(), MOOD)
    assert [next(rows).id for _ in range(3)] == ["1", "2", "3"]


def test_skipped_rows_of_a_stream_are_handed_out() -> None:
    skipped: list[Any] = []
    rows = list(iter_examples(io.StringIO("sentence\nx\n \ny\n"), MOOD, bad_rows="skip", skipped=skipped))
    assert [row.id for row in rows] == ["1", "3"]
    assert [(bad.line, bad.path) for bad in skipped] == [(3, "<stream>")]


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("id,text\nr1,Great film\n", "'id', 'text'"),
        ("id,text", "'id', 'text'"),
        ("text\nGreat film\n", "'text'"),
        ("Sentence\nGreat film\n", "'Sentence'"),
        ('"id","Sentence"\n"r1","Great film, really"\n', "'id', 'Sentence'"),
        ("id, review\nr1, Great film\n", "'id', 'review'"),
        (",review,stars\n0,Great film,5\n1,Bad one,1\n", "'', 'review', 'stars'"),
        ("review,stars\nGreat film,5\n\nBad one,1\n", "'review', 'stars'"),
        ("Review Text,Number of stars\nGreat film,5\n", "'Review Text', 'Number of stars'"),
        ("id;text\nr1;Great film\n", "'id', 'text'"),
        ("\n\nid,text\nr1,Great film\n", "'id', 'text'"),
        ("id\ttext\nr1\tGreat film\n", "'id', 'text'"),
    ],
)
def test_a_table_with_other_columns_is_refused(tmp_path: Path, content: str, columns: str) -> None:
    path = tmp_path / "rows.txt"
    path.write_text(content, encoding="utf-8")
    for source in (path, io.StringIO(content)):
        with pytest.raises(DataError) as caught:
            list(iter_examples(source, MOOD, bad_rows="skip"))
        line = len(content) - len(content.lstrip("\n")) + 1
        name = path if source is path else "<stream>"
        assert str(caught.value).startswith(f"{name}:{line}: the columns must include 'sentence', got {columns}")


@pytest.mark.parametrize("first", ["id\tsentence1", "Sentence1\tSentence2", "text\tother"])
def test_a_table_of_two_columns_is_no_pair_of_texts(first: str) -> None:
    with pytest.raises(DataError, match=r"^<stream>:1: the columns must include 'sentence"):
        read(f"{first}\nr1\tGreat film\nr2\tBad film\n", SAME)


@pytest.mark.parametrize("ending", ["jsonl", "txt"])
@pytest.mark.parametrize("task", [MOOD, SAME])
def test_json_with_other_keys_is_refused(tmp_path: Path, task: Task, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    path.write_text('{"id": 1, "text": "Great film"}\n', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(iter_examples(path, task, bad_rows="skip"))
    due = ", ".join(map(repr, task.text))
    assert str(caught.value) == f"{path}:1: the object's keys must include {due}, got 'id', 'text'"


@pytest.mark.parametrize("first", ["{", '{"sentence": "x",', '  { "sentence"'])
def test_json_that_is_not_one_object_a_line_is_no_text(first: str) -> None:
    with pytest.raises(DataError, match=r"^<stream>:1: the row must be a JSON object on one line, got ."):
        read(f"{first}\n")


@pytest.mark.parametrize("first", ["[", '[{"sentence": "x"},'])
def test_half_an_array_is_no_text(first: str) -> None:
    with pytest.raises(DataError, match=r"^<stream>:1: must be a JSON array of objects \(Expecting value, at column"):
        read(f"{first}\n")


def test_json_lines_may_leave_out_what_is_null() -> None:
    rows = [{"sentence1": "x"}, {"sentence1": "x", "sentence2": "y"}]
    content = "\n".join(map(json.dumps, rows))
    assert [row.texts for row in read(content, SAME, bad_rows="skip")] == [("x", "y")]


@pytest.mark.parametrize(
    "lines",
    [
        ["Good, bad and ugly.", "Long, slow, dull."],
        ["Good, bad", "Slow, dull"],  # as many cells on each line, but prose has a blank after its comma
        ["Good score, text", "x"],  # with a column's usual name, but a blank before it
        ["No, text", "A line of another form"],
        ["Great film", "Bad film"],
        ["Great"],
        ["yes,yes", "no,no"],  # columns have different names
        ["Yes,no", "A line of another form"],
        ["Yes,no"],
        ["Yes; no | maybe", "No; yes | maybe"],
        ["1,000 people came,all of them glad", "2,000 people came,all of them sad"],
        ["This sentence, I think, is text.", "It says so, twice, I think."],
        ["[Applause] He left.", "{odd} but text"],
        ["Text of five words here", "x"],
        ['He said "no", and left.', '"Never", she said.'],
        ["None", "nan", "null", "NaN", "NULL"],
    ],
)
def test_sentences_stay_sentences(lines: list[str]) -> None:
    assert [(row.id, *row.texts) for row in read("\n".join(lines))] == [
        (str(number), line) for number, line in enumerate(lines, 1)
    ]


def test_plain_pairs_stay_pairs() -> None:
    assert [row.texts for row in read("good\tbad\nfine\tsad\n", OTHER)] == [("good", "bad"), ("fine", "sad")]
    assert [row.texts for row in read("None\tnull\n", SAME)] == [("None", "null")]
    with pytest.raises(DataError, match=r"<stream>:2: column 'sentence2' must not be empty, got ''"):
        read("good\tbad\nfine\t\n", SAME)


def test_a_line_with_the_column_makes_text_of_what_looks_like_a_header() -> None:
    with pytest.raises(DataError, match=r"\(if that is plain text, put the line 'sentence' above it\)$"):
        read("review,text\nGreat,film\n")
    assert [row.texts for row in read("sentence\nreview,text\nGreat,film\n")] == [("review,text",), ("Great,film",)]


def test_a_blank_line_between_others_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("one\n\n \ntwo\n\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"rows\.txt:2: the row must not be blank, got ''$"):
        list(iter_examples(path, MOOD))
    skipped: list[Any] = []
    rows = list(iter_examples(path, MOOD, bad_rows="skip", skipped=skipped))
    assert [(row.id, row.line) for row in rows] == [("1", 1), ("4", 4)]
    assert [bad.line for bad in skipped] == [2, 3]


def test_words_for_nothing_stay_that_in_tables() -> None:
    with pytest.raises(DataError, match=r"<stream>:2: column 'sentence' must not be empty or a word of .*, got 'None'"):
        read("sentence\nNone\n")
    with pytest.raises(DataError, match=r"<stream>:1: column 'sentence' must not be empty or a word of .*, got 'null'"):
        read('{"sentence": "null"}\n')


def test_a_pipe_is_not_read_ahead_where_the_first_line_decides() -> None:
    def endless() -> Any:
        yield b"A film, I think, to see.\n"
        raise AssertionError("read ahead")

    assert next(iter_examples(endless(), MOOD)).texts == ("A film, I think, to see.",)
