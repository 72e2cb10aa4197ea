"""Labels taken from a training file, a dev split held out of one, and rows that stand in both."""

from pathlib import Path
from typing import Any

import pytest

from multitask.data.examples import Dataset, Example, infer_labels, read_examples
from multitask.data.splits import shared_rows, stratified_split
from multitask.errors import ConfigError, DataError
from multitask.settings.task import Task

MOOD = Task(name="mood", text=("text",), label="mood", labels=("0", "1", "2"))
NEAR = Task(name="near", text=("a", "b"), label="near", kind="regression", labels=(0.0, 5.0))


def put(folder: Path, content: str | bytes, name: str = "rows.tsv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_infer_labels(tmp_path: Path) -> None:
    def inferred(column: list[str], **changes: Any) -> Task:
        path = put(tmp_path, "text\tmood\n" + "".join(f"x\t{label}\n" for label in column))
        settings = {"name": "mood", "text": "text", "label": "mood", "train": str(path)}
        return infer_labels(Task(**(settings | changes)))

    assert inferred(["10", "9", "9.0", "", "NaN"]).labels == ("9", "10")
    assert inferred(["good", "bad", "10"]).labels == ("10", "bad", "good")
    assert inferred(["1.0", "0.0", "1"], kind="binary").labels == ("0.0", "1.0")
    assert inferred(["1"], labels=("0", "1")).labels == ("0", "1")
    assert inferred(["1"], kind="regression").labels is None
    with pytest.raises(ConfigError, match="two classes, got 3"):
        inferred(["a", "b", "c"], kind="binary")
    with pytest.raises(DataError, match="column 'mood' must have at least two classes, got only 'a'"):
        inferred(["a"])
    with pytest.raises(DataError, match="must have at most 20 classes in 30 rows, got 30: is tasks.mood a regression"):
        inferred([str(number / 7) for number in range(30)])
    with pytest.raises(
        ConfigError, match="tasks.x must have labels, or a training file to take them from, got neither"
    ):
        infer_labels(Task(name="x", text="a", label="b"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="labels must be set, or taken from the training file, got None"):
        read_examples(tmp_path / "rows.tsv", Task(name="x", text="text", label="mood"))  # type: ignore[arg-type]


def dataset(labels: list[Any]) -> Dataset:
    return Dataset("rows.tsv", [Example(str(row), ("x",), label, row + 2) for row, label in enumerate(labels)])


def test_stratified_split() -> None:
    data = dataset([0] * 700 + [1] * 200 + [2] * 99 + [3])
    train, dev = stratified_split(data, MOOD, seed=3)
    assert len(dev) == 100
    assert [dev.labels.count(label) for label in range(4)] in ([70, 20, 10, 0], [70, 20, 9, 0])
    assert sorted([*train.examples, *dev.examples], key=lambda row: row.line) == data.examples
    assert [row.line for row in dev.examples] == sorted(row.line for row in dev.examples)
    assert 3 in train.labels
    assert stratified_split(data, MOOD, seed=3) == (train, dev)
    assert stratified_split(data, MOOD, seed=4) != (train, dev)


def test_stratified_split_of_numbers() -> None:
    data = dataset([float(row) / 20 for row in range(100)])
    train, dev = stratified_split(data, NEAR, seed=0)
    assert [int(2 * label) for label in dev.labels] == list(range(10))
    assert len(train) == 90
    # Any of the first ten rows may be the first to be held out.
    assert {stratified_split(data, NEAR, seed)[1].labels[0] for seed in range(60)} == {row / 20 for row in range(10)}


def test_small_splits() -> None:
    for count in range(2, 12):
        train, dev = stratified_split(dataset([0] * count), MOOD, seed=count)
        assert len(train) + len(dev) == count
        assert len(dev) >= 1
        assert len(train) >= 1
    with pytest.raises(DataError, match="must have at least 2 rows, all labelled, to split off dev, got 1$"):
        stratified_split(dataset([0]), MOOD, seed=0)
    with pytest.raises(DataError, match="must have 2 rows of some class to split off dev, got 1 of each$"):
        stratified_split(dataset([0, 1, 2]), MOOD, seed=0)


def test_shared_rows() -> None:
    train = [Example("1", ("a", "b"), 1, 2), Example("2", ("c", "d"), 1, 3)]
    dev = [Example("3", ("b", " a"), 1, 2), Example("4", ("c", "e"), 1, 3), Example("5", ("c", "d"), 0, 4)]
    assert [row.id for row in shared_rows(train, dev)] == ["3", "5"]
