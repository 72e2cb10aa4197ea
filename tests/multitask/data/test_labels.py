"""What the training rows decide: which words are labels or texts, and what is said where labels can't be learned."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multitask.data.examples import infer_labels, iter_examples, read_examples
from multitask.data.load import prepare
from multitask.data.memory import memory_rows
from multitask.errors import DataError
from multitask.settings.config import RunConfig
from multitask.settings.task import Task

MOOD = Task(name="mood", text="text", label="mood")
NEAR = replace(MOOD, kind="regression")


def settled(task: Task, rows: list[tuple[Any, Any]]) -> tuple[Task, list[str]]:
    notes: list[str] = []
    memory = memory_rows([{"text": text, "mood": mood} for text, mood in rows], task, "rows")
    return infer_labels(task, memory, notes=notes), notes


def labels_of(task: Task, *counted: tuple[Any, int]) -> tuple[tuple[str, ...], list[str]]:
    task, notes = settled(task, [(f"a text {row}", label) for label, count in counted for row in range(count)])
    return tuple(str(label) for label in task.labels or ()), notes


@pytest.mark.parametrize("word", ["None", "NA", "N/A", "n/a", "null", "NULL"])
def test_a_word_is_a_class_by_its_share(word: str) -> None:
    assert labels_of(MOOD, ("no", 10), ("yes", 10), (word, 10)) == (
        tuple(sorted(["no", "yes", word])),
        [
            f"mood: '{word}' in 10 of 30 cells of column 'mood' is taken as a class"
            " (tasks.mood.labels without it takes it as missing)"
        ],
    )
    missing = (
        f"mood: '{word}' in 4 of 24 cells of column 'mood' is taken as missing"
        " (tasks.mood.labels with it takes it as a class)"
    )
    assert labels_of(MOOD, ("no", 10), ("yes", 10), (word, 4)) == (("no", "yes"), [missing])
    assert labels_of(MOOD, ("no", 60), ("yes", 60), (word, 6))[0] == ("no", "yes")  # under 5 %


@pytest.mark.parametrize("word", ["NaN", "nan", "<NA>", "#N/A"])
def test_what_only_programs_write_is_a_class_where_labels_name_it_alone(word: str) -> None:
    labels, notes = labels_of(MOOD, ("no", 10), ("yes", 10), (word, 10))
    assert labels == ("no", "yes")
    assert len(notes) == 1
    assert "is taken as missing" in notes[0]
    assert settled(replace(MOOD, labels=("no", word)), [("a", word)] * 10)[1] == []


def test_labels_and_missing_overrule_the_share() -> None:
    rows = [("a text", "None"), ("None", "yes")] * 10
    named = replace(MOOD, labels=("None", "yes"), missing=["None"])
    assert settled(named, rows) == (named, [])
    memory = memory_rows([{"text": text, "mood": mood} for text, mood in rows], named, "rows")
    data = read_examples(memory, named)
    assert data.labels == [0] * 10
    assert str(data.skipped[0]) == (
        "rows, row 2: column 'text' must not be empty or a word of tasks.mood.missing, got 'None'"
    )
    lists = replace(MOOD, labels=("no", "yes"))
    assert settled(lists, [("a", "None"), ("a", "yes")])[1] == [
        "mood: 'None' in 1 of 2 cells of column 'mood' is taken as missing"
        " (tasks.mood.labels with it takes it as a class)"
    ]
    assert "or tasks.mood.labels must name it, got 'None'" in str(
        read_examples(
            memory_rows([{"text": "a", "mood": "None"}, {"text": "a", "mood": "no"}], lists, "rows"), lists
        ).skipped[0]
    )


def test_a_word_is_a_text_by_its_share_in_prediction_too() -> None:
    rows = [("None", "no"), ("very good", "yes")] * 10 + [("NA", "no")]
    task, notes = settled(MOOD, rows)
    assert notes == [
        "mood: 'NA' in 1 of 21 cells of column 'text' is taken as missing (tasks.mood.missing = [] takes it as a text)",
        "mood: 'None' in 10 of 21 cells of column 'text' is taken as a text"
        " (tasks.mood.missing = ['None'] takes it as missing)",
    ]
    assert task.missing is not None
    assert "None" not in task.missing
    assert Task.from_dict("mood", json.loads(json.dumps(task.to_dict()))) == task
    new = memory_rows([{"text": "None"}], task, "rows", labelled=False)
    assert [row.texts for row in iter_examples(new, task)] == [("None",)]
    with pytest.raises(DataError, match=r"row 1: column 'text' must not be empty or a word of tasks\.mood\.missing"):
        list(iter_examples(new, replace(task, missing=None)))


def test_empty_cells_null_and_nan_are_always_missing() -> None:
    rows = [(cell, "no") for cell in (None, "", " ", float("nan"))] * 10 + [("a", None), ("a", ""), ("b", "yes")]
    task, notes = settled(replace(MOOD, missing=()), rows)
    assert notes == []
    memory = memory_rows([{"text": text, "mood": mood} for text, mood in rows], task, "rows")
    data = read_examples(memory, task)
    assert (len(data), len(data.skipped)) == (1, 42)


def test_notes_reach_the_run(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,mood\n" + "a,yes\nb,no\nc,None\n" * 10)
    prepared = prepare(RunConfig(tasks=[replace(MOOD, train=path)]))
    assert prepared.notes[1:2] == [
        "mood: 'None' in 10 of 30 cells of column 'mood' is taken as a class"
        " (tasks.mood.labels without it takes it as missing)"
    ]
    assert prepared.config.tasks[0].labels == ("None", "no", "yes")


def test_classes_that_differ_in_case_alone_are_said() -> None:
    assert labels_of(MOOD, ("Billing", 3), ("billing", 3), ("bill  ing", 1), ("bill ing", 1))[1] == [
        "mood: the classes 'Billing', 'billing' differ in case or blanks alone",
        "mood: the classes 'bill  ing', 'bill ing' differ in case or blanks alone",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "text,mood\n" + "good,yes,x\nbad,no,x\n" * 3,
            "a.csv:2: the row must have 2 fields like the header, not 3, got 'good,yes,x' (6 rows can't be used)",
        ),
        (
            "a.csv",
            "text,mood\ngood,yes\nbad,no,x\n",
            "a.csv: column 'mood' must have at least two classes, got only 'yes'; 1 row can't be used, the first:"
            " PATH/a.csv:3: the row must have 2 fields like the header, not 3, got 'bad,no,x'",
        ),
        (
            "a.csv",
            "text,mood\ngood,yes\nbad,None\n",
            "a.csv: column 'mood' must have at least two classes, got only 'yes'; 'None' (1 row) stands for a missing"
            " label unless tasks.mood.labels names it",
        ),
        (
            "a.jsonl",
            '{"text": "a", "mood": ["x", "y"]}\n' * 2,
            "a.jsonl:1: column 'mood' must be one label (tasks.mood.kind = 'multilabel' takes lists of them), got"
            " ['x', 'y'] (2 rows can't be used)",
        ),
        (
            "a.jsonl",
            '{"text": "a", "mood": {"x": 1}}\n',
            "a.jsonl:1: column 'mood' must be a string or a number, got {'x': 1}",
        ),
    ],
)
def test_the_first_true_reason_is_said(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        infer_labels(replace(MOOD, train=path))
    assert str(caught.value) == f"{tmp_path}/{message.replace('PATH', str(tmp_path))}"


def test_numbers_that_are_all_one_are_refused() -> None:
    with pytest.raises(DataError, match=r"'mood' must have at least two different numbers, got 2.5 in all 3 rows$"):
        settled(NEAR, [("a", 2.5)] * 3)
    assert settled(NEAR, [("a", 2.5), ("b", 1)])[0] == NEAR
    assert settled(NEAR, [("a", "NA"), ("b", 1), ("c", 2)])[1] == [
        "mood: 'NA' in 1 of 3 cells of column 'mood' is taken as missing"
    ]
