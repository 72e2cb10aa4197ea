"""JSON arrays of objects, on one line or over many."""

import json
from pathlib import Path

import pytest

from multitask.data.examples import infer_labels, read_examples
from multitask.errors import DataError
from multitask.settings.task import Task

MOOD = Task(name="mood", text="text", label="label", labels=("neg", "pos"))
ROWS = [{"text": "good, {really}]", "label": "pos"}, {"text": "bad", "label": "neg", "id": 7}]


def put(folder: Path, content: str, name: str = "rows.json") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["rows.json", "rows.txt", "rows.jsonl"])
@pytest.mark.parametrize(("indent", "lines"), [(None, [1, 1]), (2, [2, 6]), (0, [2, 6])])
def test_an_array_of_objects(tmp_path: Path, name: str, indent: int | None, lines: list[int]) -> None:
    """Field 12."""
    path = put(tmp_path, json.dumps(ROWS, indent=indent) + "\n", name)
    data = read_examples(path, MOOD)
    assert [(row.texts[0], row.label, row.id) for row in data.examples] == [
        ("good, {really}]", 1, "1"),
        ("bad", 0, "7"),
    ]
    assert [row.line for row in data.examples] == lines
    assert infer_labels(Task(name="mood", text="text", label="label"), path).labels == ("neg", "pos")


def test_a_bad_item_is_named_by_its_line(tmp_path: Path) -> None:
    path = put(tmp_path, '[\n  {"text": "a", "label": "pos"},\n  5,\n  {"text": 5,\n   "label": "neg"}\n]\n')
    skipped = read_examples(path, MOOD, bad_rows="skip").skipped
    assert [str(row).replace(str(path), path.name) for row in skipped] == [
        "rows.json:3: the row must be a JSON object, got 5",
        "rows.json:4: column 'text' must be a string, got 5",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[\n{"text": "a"}\n{"text": "b"}\n]', r":3: .*Expecting ',' or '\]', at column 1"),
        ('[\n{"text": "a"},\n{"text": }\n]', r":3: .*Expecting value, at column 10"),
        ('[{"text": "a", "label": "pos"}', r":1: .*Expecting ',' or '\]', at column 31"),
        ('[{"text": "a", "label": "pos"}]\n[]', r":2: .*Text after the array's end, at column 1"),
        ("[{" + '"a": [' * 100_000, ":1: must be a JSON array of objects"),
        ("[]", "must have a usable row for task mood, got none"),
        ('[{"text": "caf\udce9"}]', r":1: the line must be UTF-8 \(byte 15 of the line is 0xe9\)"),
    ],
)
@pytest.mark.usefixtures("deep_calls")
def test_what_is_no_array_is_named_by_its_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message) as caught:
        read_examples(path, MOOD)
    assert "\n" not in str(caught.value)
