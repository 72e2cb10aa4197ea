"""Readers: whatever is odd in a file either works or is named by file, line, column and value."""

import json
from pathlib import Path
from typing import Any

import pytest

from multitask.data.examples import Dataset, Example, read_examples
from multitask.data.splits import shared_rows
from multitask.errors import ConfigError, DataError
from multitask.settings.config import build_config
from multitask.settings.task import Task

MOOD = Task(name="mood", text=("text",), label="mood", labels=("0", "1", "2"))
SAME = Task(name="same", text=("a", "b"), label="same", kind="binary", labels=("0", "1"))
NEAR = Task(name="near", text=("a", "b"), label="near", kind="regression", labels=(0.0, 5.0))


def put(folder: Path, content: str | bytes, name: str = "rows.tsv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path, task: Task = MOOD, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_examples(path, task, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message.replace(str(path), path.name)


def texts(path: Path, task: Task = MOOD, **settings: Any) -> list[tuple[str, ...]]:
    return [example.texts for example in read_examples(path, task, **settings).examples]


def test_the_course_files(course_data: Path) -> None:
    config = build_config(data=course_data)
    counts = {"sst": (8544, 1101, 2210), "para": (14213, 3000, 3000), "sts": (6040, 863, 1725)}
    shared = {"sst": 2, "sts": 16}
    for task in config.tasks:
        assert task.train is not None
        assert task.dev is not None
        assert task.test is not None
        train, dev = read_examples(task.train, task), read_examples(task.dev, task)
        test = read_examples(task.test, task, labelled=False)
        assert (len(train), len(dev), len(test)) == counts[task.name]
        assert all(example.label is None for example in test.examples)
        assert all(len(row.id) == 25 for data in (train, dev, test) for row in data.examples)
        if task.name in shared:
            assert len(shared_rows(train.examples, dev.examples)) == shared[task.name]
        assert not dev.skipped
        assert not test.skipped
        if task.name == "para":
            (bad,) = train.skipped
            assert (bad.path, bad.line, bad.column, bad.value) == (task.train, 8161, "sentence2", "")
            assert f"{task.train}:8161: column 'sentence2' must not be empty, got ''" in str(bad)
            assert sorted(set(train.labels)) == [0, 1]
            assert sum(train.labels) == 5318
        else:
            assert not train.skipped
        if task.name == "sst":
            assert sorted(set(train.labels)) == [0, 1, 2, 3, 4]
        if task.name == "sts":
            assert sum(label % 1 != 0 for label in train.labels) > 1000
            assert (min(train.labels), max(train.labels)) == (0.0, 5.0)


def test_columns_are_found_by_name_and_lines_counted(tmp_path: Path) -> None:
    path = put(tmp_path, "0\t\tid\ttext\tmood\n7\t0.0\tx1\t one \t2\n\n8\t0.0\t\ttwo\t0.0\n")
    data = read_examples(path, MOOD)
    assert data.examples == [Example("x1", (" one ",), 2, 2), Example("2", ("two",), 0, 4)]
    assert (data.texts, data.pairs, data.labels, len(data)) == ([" one ", "two"], None, [2, 0], 2)


def test_labels_keep_their_value(tmp_path: Path) -> None:
    path = put(tmp_path, "a\tb\tnear\nx\ty\t3.5\nx\ty\t0\nx\ty\t 5.0 \nx\ty\t1e-1\n")
    labels = read_examples(path, NEAR).labels
    assert labels == [3.5, 0.0, 5.0, 0.1]
    assert all(isinstance(label, float) for label in labels)
    data = read_examples(put(tmp_path, "a\tb\tsame\nx\ty\t1.0\nx\ty\t0\nx\ty\t+1\n"), SAME)
    assert (data.labels, data.pairs) == ([1, 0, 1], ["y", "y", "y"])
    assert all(isinstance(label, int) for label in data.labels)


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("3.5", "column 'mood' must be one of the classes 0, 1, 2, got '3.5'"),
        ("3", "must be one of the classes 0, 1, 2, got '3'"),
        ("-1", "must be one of the classes 0, 1, 2, got '-1'"),
        ("good", "must be one of the classes 0, 1, 2, got 'good'"),
        ("1_0", "must be one of the classes 0, 1, 2, got '1_0'"),
    ],
)
def test_labels_that_are_no_class(tmp_path: Path, label: str, reason: str) -> None:
    path = put(tmp_path, f"text\tmood\nfine\t1\nbad\t{label}\n")
    message = refusal(path)
    assert message.startswith("rows.tsv:3: ")
    assert reason in message
    data = read_examples(path, MOOD, bad_rows="skip")
    assert (len(data), [(bad.line, bad.column, bad.value) for bad in data.skipped]) == (
        1,
        [(3, "mood", label)],
    )


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("5.1", "column 'near' must be from 0 to 5, got '5.1'"),
        ("-0.1", "must be from 0 to 5, got '-0.1'"),
        ("1e999", "must be from 0 to 5, got '1e999'"),
        ("high", "must be a number, got 'high'"),
        ("3;5", "must be a number, got '3;5'"),
        ("inf", "must be a number, got 'inf'"),
        ("0x1", "must be a number, got '0x1'"),
    ],
)
def test_labels_that_are_no_number_of_the_range(tmp_path: Path, label: str, reason: str) -> None:
    message = refusal(put(tmp_path, f"a\tb\tnear\nx\ty\t{label}\n"), NEAR)
    assert message.startswith("rows.tsv:2: ")
    assert reason in message


@pytest.mark.parametrize("word", ["", " ", "NaN", "nan", "None", "null"])
def test_missing_texts_and_labels_are_left_out_and_reported(tmp_path: Path, word: str) -> None:
    path = put(tmp_path, f"text\tmood\nfine\t1\n{word}\t1\nno label\t{word}\n")
    data = read_examples(path, MOOD)
    assert [example.texts for example in data.examples] == [("fine",)]
    assert [(bad.line, bad.column, bad.value) for bad in data.skipped] == [
        (3, "text", word),
        (4, "mood", word),
    ]
    whose = " or a word of tasks.mood.missing" if word.strip() else ""
    assert f"rows.tsv:3: column 'text' must not be empty{whose}, got {word!r}" in refusal(path, bad_rows="error")
    assert len(read_examples(path, MOOD, bad_rows="skip")) == 1


def test_a_class_called_none(tmp_path: Path) -> None:
    task = Task(name="mood", text=("text",), label="mood", labels=("None", "some"))
    assert read_examples(put(tmp_path, "text\tmood\nx\tNone\n"), task).labels == [0]


def test_no_usable_row_at_all(tmp_path: Path) -> None:
    assert refusal(put(tmp_path, "text\tmood\n")) == "rows.tsv must have a usable row for task mood, got none"
    message = refusal(put(tmp_path, "text\tmood\nx\t\ny\t\n"))
    assert message.endswith("rows.tsv:2: column 'mood' must not be empty, got ''")
    assert refusal(put(tmp_path, "")) == "rows.tsv must have rows, got none"
    assert refusal(put(tmp_path, "\n \n")) == "rows.tsv must have rows, got none"
    assert refusal(tmp_path / "no.tsv") == "no.tsv can't be read: No such file or directory"
    assert "can't be read: Is a directory" in refusal(tmp_path)


def test_header_faults(tmp_path: Path) -> None:
    path = put(tmp_path, "id\tsentence\tmood\nx\ty\t1\n")
    assert refusal(path) == "rows.tsv:1: the columns must include 'text', got 'id', 'sentence', 'mood'"
    assert refusal(put(tmp_path, "text\ttext\tmood\nx\ty\t1\n")).endswith(
        "the header must not repeat a column, got 'text' twice"
    )
    # Without its label a file serves prediction.
    assert texts(put(tmp_path, "text\nx, y\n"), labelled=False) == [("x, y",)]


def test_quotes_the_csv_way(tmp_path: Path) -> None:
    rows = [
        ('"He said ""no""."', 'He said "no".'),
        ('"tab\there"', "tab\there"),
        ('5" or 6"', '5" or 6"'),
        ('"two\nlines"', "two\nlines"),
        ('"two\r\n\r\nmore"', "two\n\nmore"),
        ('""""', '"'),
    ]
    path = put(tmp_path, "text\tmood\n" + "".join(f"{raw}\t1\r\n" for raw, _ in rows))
    data = read_examples(path, MOOD)
    assert [example.texts[0] for example in data.examples] == [text for _, text in rows]
    assert [example.line for example in data.examples] == [2, 3, 4, 5, 7, 10]
    comma = put(tmp_path, 'mood,text\n1,"a, ""b"""\n2,c\n', "rows.csv")
    assert texts(comma) == [('a, "b"',), ("c",)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('"open\t1', "must close each quote, got "),
        ('"closed" too early\t1', "must have no text after a closing quote"),
        ("only one field", "must have 2 fields like the header, not 1, got 'only one field'"),
        ("a\tb\t1", "must have 2 fields like the header, not 3, got 'a\\tb\\t1'"),
    ],
)
def test_broken_rows_do_not_swallow_their_neighbours(tmp_path: Path, row: str, reason: str) -> None:
    # The quoted tab makes it a file with quoting; without one, test_dialects.py has what becomes of quotes.
    path = put(tmp_path, f'text\tmood\nbefore\t0\n{row}\nafter\t1\n"quo\tted"\t2\nlast\t1\n')
    message = refusal(path)
    assert message.startswith("rows.tsv:3: the row ")
    assert reason in message
    data = read_examples(path, MOOD, bad_rows="skip")
    assert [example.texts[0] for example in data.examples] == ["before", "after", "quo\tted", "last"]
    assert [example.line for example in data.examples] == [2, 4, 5, 6]
    assert [bad.line for bad in data.skipped] == [3]


def test_ends_of_lines_and_byte_order_mark(tmp_path: Path) -> None:
    assert texts(put(tmp_path, b"\xef\xbb\xbftext\tmood\r\none\t1\r\ntwo\t2")) == [("one",), ("two",)]
    assert texts(put(tmp_path, b'\xef\xbb\xbf"text"\t"mood"\n"one"\t"1"\n')) == [("one",)]
    assert texts(put(tmp_path, "text\tmood\nx\t1\n".encode("utf-16"))) == [("x",)]


def test_odd_characters(tmp_path: Path) -> None:
    fine = ["😀 emoji", "مرحبا", "a\u0007bell", "nbsp\u00a0", "x" * 1_000_000, "\u2028 separators \x85 \x0c"]
    path = put(tmp_path, "text\tmood\n" + "".join(f"{text}\t1\n" for text in fine))
    assert [example.texts[0] for example in read_examples(path, MOOD).examples] == fine
    path = put(tmp_path, b"text\tmood\nfine\t1\ncaf\xe9\t1\nnul\0\t1\n")
    due = "must be UTF-8 (byte {} of the line is {}), or tasks.mood.format.encoding say what else"
    due_text = due.format(4, "0xe9")
    assert refusal(path) == f"rows.tsv:3: column 'text' {due_text}, got 'caf\\udce9'"
    data = read_examples(path, MOOD, bad_rows="skip")
    assert [(bad.line, bad.reason) for bad in data.skipped] == [
        (3, due_text),
        (4, "must not contain NUL characters"),
    ]
    assert f"column 'mood' {due.format(3, '0xff')}" in refusal(put(tmp_path, b"text\tmood\nx\t\xff\n"))
    assert f"'id' {due.format(2, '0xff')}, got 'i\\udcff'" in refusal(put(tmp_path, b"id\ttext\tmood\ni\xff\tx\t1\n"))
    assert len(refusal(put(tmp_path, "text\tmood\n" + "x\t" + "9" * 100_000))) < 300


def test_json_lines(tmp_path: Path) -> None:
    rows = [
        {"id": 7, "text": "tab\there\nand more", "mood": 1},
        {"text": "x", "mood": 2.0},
        {"text": "y", "mood": "0"},
    ]
    content = "\n".join(json.dumps(row) for row in rows) + "\n\n"
    data = read_examples(put(tmp_path, content, "rows.jsonl"), MOOD)
    assert data.labels == [1, 2, 0]
    assert [example.id for example in data.examples] == ["7", "2", "3"]
    assert data.texts[0] == "tab\there\nand more"
    # The content decides where the ending does not.
    assert read_examples(put(tmp_path, content, "rows.txt"), MOOD) == Dataset(str(tmp_path / "rows.txt"), data.examples)
    near = put(tmp_path, '{"a": "x", "b": "y", "near": 3.5}', "near.jsonl")
    assert read_examples(near, NEAR).labels == [3.5]


@pytest.mark.parametrize(
    ("line", "reason", "missing"),
    [
        ('{"text": "x", "mood": 1', "must be a JSON object on one line, got ", False),
        ("[1]", "must be a JSON object on one line, got ", False),
        ("[" * 100_000, "must be a JSON object on one line, got ", False),
        ('{"text": 5, "mood": 1}', "column 'text' must be a string, got 5", False),
        ('{"text": ["x"], "mood": 1}', "column 'text' must be a string, got ['x']", False),
        ('{"text": "\\ud800", "mood": 1}', "must be UTF-8, got ", False),
        ('{"text": "x", "mood": true}', "must be one of the classes 0, 1, 2, got True", False),
        ('{"text": "x", "mood": 1.5}', "must be one of the classes 0, 1, 2, got 1.5", False),
        (
            '{"text": "x", "mood": [1]}',
            "must be one label (tasks.mood.kind = 'multilabel' takes lists of them), got [1]",
            False,
        ),
        ('{"text": "x", "mood": null}', "column 'mood' must not be empty, got None", True),
        ('{"text": "x", "mood": NaN}', "column 'mood' must not be empty, got nan", True),
        ('{"text": null, "mood": 1}', "column 'text' must not be empty, got None", True),
        ('{"text": NaN, "mood": 1}', "column 'text' must not be empty, got nan", True),
        ('{"mood": 1}', "column 'text' must not be empty, got None", True),
    ],
)
@pytest.mark.usefixtures("deep_calls")
def test_json_faults(tmp_path: Path, line: str, reason: str, missing: bool) -> None:
    path = put(tmp_path, '{"text": "fine", "mood": 1}\n' + line + "\n", "rows.jsonl")
    message = refusal(path, bad_rows="error")
    assert message.startswith("rows.jsonl:2: ")
    assert reason in message
    if missing:
        assert len(read_examples(path, MOOD).skipped) == 1
    else:
        assert refusal(path) == message


def test_bad_rows_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bad_rows must be one of missing, error, skip"):
        read_examples(put(tmp_path, "text\tmood\nx\t1\n"), MOOD, bad_rows="ignore")  # type: ignore[arg-type]
