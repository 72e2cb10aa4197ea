"""Parquet files and Excel sheets, as pandas writes them."""

import datetime
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multitask.data.examples import Example, infer_labels, iter_examples, read_examples
from multitask.data.memory import memory_rows
from multitask.errors import DataError
from multitask.settings.format import Format
from multitask.settings.task import Task

MOOD = Task(name="mood", text="text", label="label")
SCORE = Task(name="score", text="text", label="label", kind="regression")
KINDS = ["parquet", "xlsx"]


def put(folder: Path, frame: pd.DataFrame, kind: str, **more: Any) -> Path:
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_excel(path, index=False, **more)
    return path


def refusal(path: Path, task: Task = MOOD) -> str:
    with pytest.raises(DataError) as caught:
        read_examples(path, infer_labels(task, path))
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), path.name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [["b", "a", "b"], [1, 0, 1], [1.0, 0.0, 1.0], [True, False, True]])
def test_rows_are_those_in_memory(tmp_path: Path, kind: str, labels: list[Any]) -> None:
    frame = pd.DataFrame(
        {"id": [7, 8, 9], "text": ["good,\nfine", "bad", '"x"'], "label": labels, "other": [1.5, 2, 3]}
    )
    path, memory = put(tmp_path, frame, kind), memory_rows(frame, MOOD, "rows")
    task = infer_labels(MOOD, memory)
    assert infer_labels(MOOD, path) == task
    read, given = read_examples(path, task), read_examples(memory, task)
    first = 2 if kind == "xlsx" else 1
    assert read.examples == [row._replace(line=row.line + first - 1) for row in given.examples]
    assert read.examples[0] == Example("7", ("good,\nfine",), 1, first)
    assert str(read.dialect) == ("Excel, the first sheet, a header" if kind == "xlsx" else "parquet")


@pytest.mark.parametrize("kind", KINDS)
def test_cells_that_can_not_be_used(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"text": ["a", None, "c", "d"], "label": ["x", "y", None, "y"]})
    path = put(tmp_path, frame, kind)
    data = read_examples(path, infer_labels(MOOD, path))
    line = 2 if kind == "xlsx" else 1
    assert [(row.line, row.column, row.value) for row in data.skipped] == [
        (line + 1, "text", None),
        (line + 2, "label", None),
    ]
    numbers = put(tmp_path, pd.DataFrame({"text": [1, 2], "label": ["x", "y"]}), kind)
    assert refusal(numbers) == f"rows.{kind}:{line}: column 'text' must be a string, got 1"
    days = put(
        tmp_path, pd.DataFrame({"text": ["a", "b"], "label": [datetime.datetime(2020, 1, day) for day in (1, 2)]}), kind
    )
    assert "column 'label' must be a string or a number, got datetime.datetime(2020, 1, 1, 0, 0)" in refusal(days)


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_is_not_there(tmp_path: Path, kind: str) -> None:
    path = put(tmp_path, pd.DataFrame({"body": ["a"], "label": ["x"]}), kind)
    message = f"rows.{kind}: the columns must include 'text', got 'body', 'label'"
    task = Task(name="mood", text="text", label="label", labels=("x", "y"))
    with pytest.raises(DataError, match=message):
        list(iter_examples(path, task))
    assert refusal(path, task) == message


def test_numbers_are_those_that_were_meant(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "label": np.array([0.1, 2.5], dtype=np.float32)})
    assert read_examples(put(tmp_path, frame, "parquet"), SCORE).labels == [0.1, 2.5]
    assert read_examples(put(tmp_path, frame.astype({"label": float}).round(2), "xlsx"), SCORE).labels == [0.1, 2.5]


def test_a_large_parquet_file_of_odd_types(tmp_path: Path) -> None:
    count = 10_000
    table = pa.table(
        {
            "text": pa.array([f"text {number}" for number in range(count)], pa.large_string()),
            "label": pa.array([["a", "b"][number % 2] for number in range(count)]).dictionary_encode(),
            "vector": pa.array([[0.5]] * count),
        }
    )
    pq.write_table(table, tmp_path / "rows.bin", row_group_size=3000)
    data = read_examples(tmp_path / "rows.bin", infer_labels(MOOD, tmp_path / "rows.bin"))
    assert (len(data), data.examples[-1]) == (count, Example("10000", ("text 9999",), 1, 10_000))


def test_the_sheet_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    with pd.ExcelWriter(path) as writer:
        pd.DataFrame({"x": [1]}).to_excel(writer, sheet_name="notes", index=False)
        pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]}).to_excel(
            writer, sheet_name="rows", index=False, startrow=2
        )
    task = Task(name="mood", text="text", label="label", labels=("x", "y"), format=Format(sheet="rows"))
    data = read_examples(path, task)
    assert [(row.texts[0], row.line) for row in data.examples] == [("a", 4), ("b", 5)]
    assert str(data.dialect) == "Excel, the sheet 'rows', a header"
    assert refusal(path).endswith(
        "the columns must include 'text', 'label', got 'x' on its first sheet (tasks.mood.format.sheet may name"
        " another: 'rows')"
    )
    other = Task(name="mood", text="text", label="label", labels=("x", "y"), format=Format(sheet="row"))
    assert refusal(path, other).endswith("tasks.mood.format.sheet must be one of 'notes', 'rows', got 'row'")


def test_a_sheet_without_a_header(tmp_path: Path) -> None:
    path = put(tmp_path, pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]}), "xlsx", header=False)
    numbered = Task(name="mood", text="1", label="2", labels=("x", "y"), format=Format(header=False))
    assert [row.texts[0] for row in read_examples(path, numbered).examples] == ["a", "b"]
    unsaid = Task(name="mood", text="1", label="2", labels=("x", "y"))
    assert refusal(path, unsaid).endswith(
        "tasks.mood.format.header must be true or false to read a sheet's columns by number"
    )


def test_columns_of_parquet_by_number(tmp_path: Path) -> None:
    path = put(tmp_path, pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]}), "parquet")
    task = Task(name="mood", text="1", label="2", labels=("x", "y"))
    assert [(row.texts[0], row.label) for row in read_examples(path, task).examples] == [("a", 0), ("b", 1)]


def test_half_a_file_is_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]})
    path = put(tmp_path, frame, "parquet")
    path.write_bytes(path.read_bytes()[:-10])
    assert refusal(path).startswith("rows.parquet must be a parquet file that is whole (")
    path = put(tmp_path, frame, "xlsx")
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert refusal(path).endswith("but is a broken zip archive")
    with zipfile.ZipFile(io.BytesIO(whole)) as book, zipfile.ZipFile(path, "w") as other:
        for name in book.namelist():
            content = book.read(name)
            other.writestr(name, content[: len(content) // 2] if "sheet1" in name else content)
    assert refusal(path).startswith("rows.xlsx must be an Excel file that is whole (")


@pytest.mark.parametrize(("kind", "module"), [("parquet", "pyarrow"), ("xlsx", "openpyxl")])
def test_without_the_extra_its_name_is_said(
    tmp_path: Path, kind: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]}), kind)
    for name in list(sys.modules):
        if name.partition(".")[0] == module:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    what = "a parquet file" if kind == "parquet" else "an Excel file"
    assert refusal(path).startswith(f"rows.{kind} is {what}, which needs {module}: pip install 'minbert[tables]' (")
