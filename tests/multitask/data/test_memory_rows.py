"""Rows in memory: what every form of them reads as, and which sentence names what can't be used."""

import csv
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from multitask.data.examples import Dataset, OnBad, infer_labels, read_examples
from multitask.data.memory import MemoryRows, memory_rows, rows_by_task
from multitask.errors import ConfigError, DataError
from multitask.settings.task import Task

NAME = "data['topic']['train']"
TOPIC = Task(name="topic", text="message", label="topic")
GRADE = Task(name="grade", text=("a", "b"), label="y", kind="regression", labels=(0, 5), id="key")
ROWS = [
    {"message": "My card was charged twice.", "topic": "billing", "id": "m1", "unused": object()},
    {"message": "Where is my parcel?", "topic": "delivery", "id": "m2"},
    {"message": "The kettle trips the fuse.", "topic": "fault", "id": "m3"},
]


def taken(rows: Any, task: Task = TOPIC, **options: Any) -> MemoryRows:
    return memory_rows(rows, task, NAME, **options)


def read(rows: Any, task: Task = TOPIC, bad_rows: OnBad = "missing") -> Dataset:
    memory = taken(rows, task)
    return read_examples(memory, infer_labels(task, memory), bad_rows=bad_rows)


def cut(rows: Iterable[Any]) -> list[dict[str, Any]]:
    """The rows without the column that no library could hold."""
    return [{key: value for key, value in row.items() if key != "unused"} for row in rows]


def as_file(folder: Path) -> Path:
    file = folder / "rows.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["message", "topic", "id"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(ROWS)
    return file


def as_sqlite() -> Iterator[sqlite3.Row]:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    connection.execute("CREATE TABLE rows (message, topic, id)")
    connection.executemany("INSERT INTO rows VALUES (:message, :topic, :id)", cut(ROWS))
    yield from connection.execute("SELECT * FROM rows")
    connection.close()


def as_frame(**types: str) -> Any:
    return pd.DataFrame(cut(ROWS)).astype(types)


FORMS: dict[str, Callable[[], Any]] = {
    "tuple of dicts": lambda: tuple(ROWS),
    "generator": lambda: (row for row in ROWS),
    "list of Series": lambda: [row for _, row in as_frame().iterrows()],
    "sqlite3": as_sqlite,
    "DataFrame": as_frame,
    "objects": lambda: as_frame(message="object", topic="object"),
    "categories": lambda: as_frame(topic="category"),
    "arrow": lambda: as_frame(message="string[pyarrow]", topic="string[pyarrow]"),
    "other index": lambda: as_frame().set_axis(["c", "a", "a"]),
    "two indices": lambda: as_frame().set_index(["topic", "id"], drop=False),
    "Dataset": lambda: datasets.Dataset.from_list(cut(ROWS)),
    "numpy Dataset": lambda: datasets.Dataset.from_list(cut(ROWS)).with_format("numpy"),
    "streamed": lambda: datasets.Dataset.from_list(cut(ROWS)).to_iterable_dataset(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_rows_as_a_file(form: str, tmp_path: Path) -> None:
    file = as_file(tmp_path)
    expected = read_examples(file, infer_labels(replace(TOPIC, train=file)))
    found = read(FORMS[form]())
    assert [row[:3] for row in found.examples] == [row[:3] for row in expected.examples]
    assert [row.line for row in found.examples] == [1, 2, 3]
    assert (found.path, found.skipped) == (NAME, [])
    assert taken(FORMS[form]()).digest == taken(ROWS).digest


@pytest.mark.parametrize(
    "dtype", ["int64", "int8", "float64", "float32", "Int64", "object", "category", "int64[pyarrow]"]
)
def test_numbers_are_the_classes_that_they_spell(dtype: str) -> None:
    frame = pd.DataFrame({"message": list("abcd"), "topic": pd.Series([10, 2, 10, 2]).astype(dtype)})
    memory = taken(frame)
    task = infer_labels(TOPIC, memory)
    assert task.labels == ("2", "10")
    assert read_examples(memory, task).labels == [1, 0, 1, 0]
    assert read_examples(memory, replace(TOPIC, labels=("10.0", "2e0"))).labels == [0, 1, 0, 1]


def test_a_missing_cell_beside_whole_numbers_does_not_change_their_spelling() -> None:
    frame = pd.DataFrame({"message": list("abc"), "topic": [1, None, 0]})
    assert frame["topic"].dtype == "float64"
    assert infer_labels(TOPIC, taken(frame)).labels == ("0", "1")
    assert infer_labels(TOPIC, taken(pd.DataFrame({"message": list("abc"), "topic": [1, 0.5, 0]}))).labels == (
        "0",
        "0.5",
        "1",
    )


@pytest.mark.parametrize("cell", [0.1, "0.1", np.float32(0.1), np.float16(0.1), Decimal("0.1"), np.array(0.1)])
def test_numbers_of_a_regression_are_what_they_are_printed_as(cell: Any) -> None:
    task = replace(GRADE, labels=(0, 0.1))
    assert read([{"a": "x", "b": "y", "y": cell}], task).labels == [0.1]


def test_truth_values_are_spelled_as_pandas_writes_them() -> None:
    rows = pd.DataFrame({"message": ["a", "b"], "topic": [True, False]})
    assert infer_labels(TOPIC, taken(rows)).labels == ("False", "True")
    assert read(rows, replace(TOPIC, labels=("True", "False"))).labels == [0, 1]
    assert read([{"message": "a", "topic": np.True_}], replace(TOPIC, labels=("True", "False"))).labels == [0]


def test_ids_are_the_cells_or_the_numbers_of_the_rows() -> None:
    keys = (7, None, 8.0, float("nan"), "k", pd.NA, "")
    rows = [{"a": "x", "b": "y", "y": min(number, 5), "key": key} for number, key in enumerate(keys)]
    assert [row.id for row in read(rows, GRADE).examples] == ["7", "2", "8", "4", "k", "6", "7"]
    assert [row.id for row in read([{"a": "x", "b": "y", "y": 1}], GRADE).examples] == ["1"]


@pytest.mark.parametrize(
    "cell", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT"), Decimal("NaN"), "", " ", "nan"]
)
def test_missing_cells_are_left_out_and_named(cell: Any) -> None:
    rows = [*ROWS, {"message": cell, "topic": "fault"}, {"message": "a text", "topic": cell}]
    data = read(rows)
    assert [row.line for row in data.examples] == [1, 2, 3]
    got = "nan" if isinstance(cell, float | np.floating) else repr(cell) if isinstance(cell, str) else "None"
    word = isinstance(cell, str) and cell == "nan"
    text, label = (" or a word of tasks.topic.missing", ", or tasks.topic.labels must name it") if word else ("", "")
    assert [str(row) for row in data.skipped] == [
        f"{NAME}, row 4: column 'message' must not be empty{text}, got {got}",
        f"{NAME}, row 5: column 'topic' must not be empty{label}, got {got}",
    ]
    with pytest.raises(DataError, match=r"^data\['topic'\]\['train'\], row 4: column 'message' must not be empty"):
        read(rows, bad_rows="error")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"message": b"bytes", "topic": "fault"}, "column 'message' must be a string, got b'bytes'"),
        ({"message": ["a", "list"], "topic": "fault"}, "column 'message' must be a string, got ['a', 'list']"),
        (
            {"message": {(1, 2): object}, "topic": "fault"},
            "column 'message' must be a string, got {(1, 2): <class 'object'>}",
        ),
        ({"message": np.array([1, 2]), "topic": "fault"}, "column 'message' must be a string, got array([1, 2])"),
        ({"message": np.int64(3), "topic": "fault"}, "column 'message' must be a string, got 3"),
        ({"message": True, "topic": "fault"}, "column 'message' must be a string, got True"),
        ({"message": "half \ud83d", "topic": "fault"}, "column 'message' must be UTF-8, got 'half \\ud83d'"),
        ({"message": "a\0b", "topic": "fault"}, "column 'message' must not contain NUL characters, got 'a\\x00b'"),
        ({"message": "a", "topic": 7.0}, "column 'topic' must be one of the classes billing, delivery, fault, got 7"),
        (
            {"message": "a", "topic": b"fault"},
            "column 'topic' must be a string or a number, got b'fault'",
        ),
        (
            {"message": "a", "topic": ["fault"]},
            "column 'topic' must be one label (tasks.topic.kind = 'multilabel' takes lists of them), got ['fault']",
        ),
        ({"message": "a", "topic": "fault", "id": "\ud83d"}, "column 'id' must be UTF-8, got '\\ud83d'"),
        ("a text", "the row must be a mapping from columns to cells, got 'a text'"),
        (None, "the row must be a mapping from columns to cells, got None"),
    ],
)
def test_a_row_that_can_not_be_used_is_named(row: Any, fault: str) -> None:
    task = replace(TOPIC, labels=("billing", "delivery", "fault"))
    rows = [*ROWS[:2], row, ROWS[2]]
    data = read(rows, task, bad_rows="skip")
    assert [example.line for example in data.examples] == [1, 2, 4]
    assert [str(bad) for bad in data.skipped] == [f"{NAME}, row 3: {fault}"]
    with pytest.raises(DataError) as caught:
        read(rows, task)
    assert str(caught.value) == f"{NAME}, row 3: {fault}"
    assert taken(rows).digest == taken(rows).digest


FORM = "must be a list of dicts, a DataFrame, a Dataset or another iterable of mappings, got "


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("rows.csv", FORM + "a str; name a file in its Task"),
        (Path("rows.csv"), FORM + "a PosixPath; name a file in its Task"),
        (7, FORM + "an int"),
        ({"message": ["a"], "topic": ["b"]}, FORM + "a dict"),
        (datasets.DatasetDict(train=datasets.Dataset.from_list(cut(ROWS))), FORM + "a DatasetDict"),
        (["a", "b"], FORM + "a list whose first row is a str, 'a'"),
        ([("a", "b")], FORM + "a list whose first row is a tuple, ('a', 'b')"),
        (dict, FORM + "a type"),
        (pd.DataFrame, FORM + "a type"),
        ([as_frame()], FORM + "a list whose first row is a DataFrame, "),
        (pd.Series(["a", "b"]), FORM + "a Series whose first row is a str, 'a'"),
        (as_frame().iterrows(), FORM + "a generator whose first row is a tuple, (0, "),
        (pd.DataFrame(), ": the columns must include 'message', 'topic', got none"),
        (as_frame().rename(columns={"topic": 3}), ": the columns must include 'topic', got 'message', 3, 'id'"),
        ([{"text": "a", "topic": "b"}], ": the columns must include 'message', got 'text', 'topic'"),
        (as_frame().rename(columns={"id": "topic"}), ": the columns must have different names, got 'topic' twice"),
        (
            as_frame().set_axis(pd.MultiIndex.from_product([["message"], ["x", "y", "z"]]), axis=1),
            ": the columns must include 'message', 'topic', got ('message', 'x'), ",
        ),
        (datasets.Dataset.from_dict({"message": ["a"]}), ": the columns must include 'topic', got 'message'"),
        (
            [{"message": "a", "topic": ["x"]}],
            ", row 1: column 'topic' must be one label (tasks.topic.kind = 'multilabel' takes lists of them), got",
        ),
        ([{"message": "a", "topic": "x"}], ": column 'topic' must have at least two classes, got only 'x'"),
    ],
)
def test_what_is_no_rows_is_one_sentence(rows: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(rows)
    assert message in str(caught.value)
    assert str(caught.value).startswith(NAME)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rows", [[], pd.DataFrame(columns=["message", "topic"]), datasets.Dataset.from_dict({"message": [], "topic": []})]
)
def test_no_rows_are_refused_where_they_are_to_be_used(rows: Any) -> None:
    with pytest.raises(DataError, match=r"^data\['topic'\]\['train'\] must have rows, got none$"):
        rows_by_task({"topic": {"train": rows}}, [TOPIC])
    assert len(taken(rows)) == 0


@pytest.mark.parametrize(
    ("data", "split", "message"),
    [
        (ROWS, None, "data must be a dict such as {'topic': {'train': rows}}, got a list"),
        (as_frame(), "dev", "data must be a dict such as {'topic': rows}, got a DataFrame"),
        ({"topics": {"train": ROWS}}, None, "data: the task must be one of topic, got 'topics' (did you mean topic?)"),
        ({"topic": {"valid": ROWS}}, None, "data['topic']: the split must be one of train, dev, test, got 'valid'"),
        ({"topic": ROWS}, None, "data['topic'] must be a dict of splits, as in {'topic': {'train': rows}}, got a list"),
        (
            {"topic": {"message": ["a"]}},
            "dev",
            "data['topic']: the split must be one of train, dev, test, got 'message'",
        ),
    ],
)
def test_rows_are_given_by_task_and_split(data: Any, split: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rows_by_task(data, [TOPIC], split=split)
    assert str(caught.value) == message


def test_a_split_alone_is_read() -> None:
    def never() -> Iterator[Any]:
        raise AssertionError("read")
        yield

    data = {"topic": {"train": never(), "dev": ROWS, "test": None}}
    assert list(rows_by_task(data, [TOPIC], split="dev")["topic"]) == ["dev"]
    assert rows_by_task({"topic": ROWS}, [TOPIC], split="dev")["topic"]["dev"].name == "data['topic']"
    held_out = rows_by_task({"topic": {"train": ROWS}}, [TOPIC], split="dev")
    assert list(held_out["topic"]) == ["train"]


def test_the_digest_is_over_the_cells_that_are_used() -> None:
    before = taken(ROWS).digest
    assert before.startswith("3 rows, SHA-256 ")
    assert taken([{**row, "other": 1} for row in ROWS]).digest == before
    assert taken(pd.DataFrame(cut(ROWS))[["topic", "id", "message"]]).digest == before
    for key in ("message", "topic", "id"):
        assert taken([*ROWS[:2], {**ROWS[2], key: "other"}]).digest != before
    assert taken(ROWS[::-1]).digest != before
    bare = [{"message": row["message"], "topic": row["topic"]} for row in [*ROWS, {"message": None, "topic": "fault"}]]
    assert taken(bare).digest == taken(pd.DataFrame(bare)).digest == taken(datasets.Dataset.from_list(bare)).digest


def test_a_tensor_is_a_number() -> None:
    rows = [{"message": "a", "topic": torch.tensor(value)} for value in (1, 0)]
    assert infer_labels(TOPIC, taken(rows)).labels == ("0", "1")
