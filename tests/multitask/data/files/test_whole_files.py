"""Files that can't be used as a whole: the first true reason is said, with the key that helps."""

import json
import os
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from multitask.data.examples import infer_labels, read_examples
from multitask.data.load import prepare
from multitask.errors import DataError
from multitask.inspection.report import inspect_file
from multitask.settings.config import RunConfig
from multitask.settings.task import Task

ROWS = [{"text": f"film {row}", "label": ("neg", "pos")[row % 2]} for row in range(10)]


def task(path: Path, **more: Any) -> Task:
    return Task(**{"name": "mood", "text": "text", "label": "label", "train": path, **more})


def refusals(path: Path) -> list[str]:
    """What training says of a file, and inspect."""
    messages = []
    for read in (lambda: prepare(RunConfig(tasks=[task(path)])), lambda: inspect_file(path)):
        with pytest.raises(DataError) as caught:
            read()
        messages.append(str(caught.value).replace(str(path), path.name))
    return messages


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "whole",
    [
        {"data": ROWS},
        {"text": {"0": "film"}, "label": {"0": "pos"}},
        {"columns": ["text", "label"], "data": [["film", "pos"]]},
    ],
)
def test_one_object_around_all_rows(tmp_path: Path, put: Any, whole: Any, indent: int | None) -> None:
    path = put(tmp_path, json.dumps(whole, indent=indent), "rows.json")
    found = "over several lines" if indent else "with the keys " + ", ".join(map(repr, whole))
    due = "rows.json must be JSON lines or a JSON array of objects, a row each (pandas: to_json(orient='records')), got"
    assert refusals(path) == [f"{due} one object {found}"] * 2


def test_one_row_of_json_is_no_object_around_rows(tmp_path: Path, put: Any) -> None:
    path = put(tmp_path, json.dumps({"text": "film", "label": "pos", "meta": {"a": 1}}), "rows.jsonl")
    assert read_examples(path, task(path, labels=("neg", "pos"))).labels == [1]


@pytest.mark.parametrize("end", [1, 4])
def test_an_array_that_is_cut(tmp_path: Path, put: Any, end: int) -> None:
    path = put(tmp_path, json.dumps(ROWS)[:-end], "rows.json")
    assert all(said.startswith("rows.json:1: must be a JSON array of objects (") for said in refusals(path))


def test_excels_word_for_the_separator(tmp_path: Path, put: Any) -> None:
    path = put(tmp_path, "sep=;\r\ntext;label\r\nfilm;pos\r\n", "rows.csv")
    due = "rows.csv:1: 'sep=;' is a word to Excel and no row: delete the line, and the separator is found by looking"
    assert refusals(path) == [due] * 2


def test_a_header_alone(tmp_path: Path, put: Any) -> None:
    path = put(tmp_path, "text,label\n", "rows.csv")
    assert refusals(path) == ["rows.csv must have rows below its header, got none"] * 2


def test_a_pipe_can_not_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    assert refusals(path) == [
        "tasks.mood.train must be a file, which is read several times, got the pipe pipe.csv",
        "pipe.csv must be a file, which is read several times, but is a pipe",
    ]


def test_other_sheets_are_named(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["about these rows"])
    sheet = book.create_sheet("Rows")
    for row in ({"text": "text", "label": "label"}, *ROWS):
        sheet.append([*row.values()])
    path = tmp_path / "rows.xlsx"
    book.save(path)
    said = refusals(path)
    assert said[0].endswith(
        "got 'about these rows' on its first sheet (tasks.mood.format.sheet may name another: 'Rows')"
    )
    assert said[1].endswith(
        "rows below its header, got none on its first sheet (format.sheet may name another: 'Rows')"
    )
    assert len(read_examples(path, task(path, labels=("neg", "pos"), format={"sheet": "Rows"}))) == len(ROWS)


def test_an_empty_cell_of_several_labels_says_how_to_write_none(tmp_path: Path, put: Any) -> None:
    path = put(tmp_path, "text,label\nfilm,a;b\nother,b\nthird,\nfourth,;\n", "rows.csv")
    several = infer_labels(task(path, kind="multilabel", label_separator=";"))
    rows = read_examples(path, several)
    assert [(row.texts[0], row.label) for row in rows.examples] == [("film", (0, 1)), ("other", (1,)), ("fourth", ())]
    assert str(rows.skipped[0]).endswith(
        "rows.csv:4: column 'label' must not be empty (';' alone stands for no label), got ''"
    )
