"""Groups stay on one side of the held-out split; its size and the labels' shares stay as near as groups allow."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from multitask import EncoderConfig, RunConfig, Task, TrainConfig
from multitask.data.batches import label_tensor
from multitask.data.examples import Dataset, Example
from multitask.data.load import prepare, read_split
from multitask.data.memory import rows_by_task
from multitask.data.splits import Split, hold_out
from multitask.errors import ConfigError, DataError

USER = Task(name="mood", text="text", label="mood", labels=("0", "1", "2"), group="user")
PAIRS = Task(
    name="same", text=("a", "b"), label="same", kind="binary", labels=("0", "1"), group=("qid1", "qid2"), id=None
)


def rows_of(labels: Any, groups: Any) -> Dataset:
    rows = zip(labels, groups, strict=True)
    return Dataset("rows.tsv", [Example(str(i), ("x",), y, i + 2, groups) for i, (y, groups) in enumerate(rows)])


def split_of(task: Task, dataset: Dataset, seed: int = 0) -> Split:
    return hold_out([(task, dataset)], seed)[0]


def groups(dataset: Dataset) -> set[str]:
    return {group for example in dataset.examples for group in example.groups}


@pytest.mark.parametrize("seed", range(4))
def test_a_group_is_on_one_side_and_labels_keep_their_shares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = rows_of(rng.choice(3, 1000, p=[0.6, 0.3, 0.1]).tolist(), [(f"u{u}",) for u in rng.integers(0, 150, 1000)])
    split = split_of(USER, data, seed)
    assert not groups(split.train) & groups(split.dev)
    assert (split.groups, split.dev_groups) == (len(groups(data)), len(groups(split.dev)))
    assert sorted([*split.train.examples, *split.dev.examples], key=lambda row: row.line) == data.examples
    assert 97 <= len(split.dev) <= 103
    held, whole = Counter(split.dev.labels), Counter(data.labels)
    assert all(abs(held[label] - whole[label] / 10) <= 3 for label in whole)
    # Groups of every size are held out, not the largest or smallest alone.
    sizes = Counter(example.groups for example in data.examples)
    dev_sizes = [sizes[(group,)] for group in groups(split.dev)]
    assert abs(np.mean(dev_sizes) - np.mean(list(sizes.values()))) < 2
    assert split_of(USER, data, seed) == split
    assert split_of(USER, data, seed + 10) != split


def test_rows_without_a_group_are_on_their_own() -> None:
    data = rows_of([row % 3 for row in range(100)], [("u",) if row < 30 else () for row in range(100)])
    split = split_of(USER, data)
    assert (split.groups, split.dev_groups, len(split.dev)) == (71, 10, 10)


def test_regressions_keep_their_spread() -> None:
    near = Task(name="near", text="text", label="near", kind="regression", group="user")
    data = rows_of([row / 40 for row in range(200)], [(f"u{row // 2}",) for row in range(200)])
    split = split_of(near, data)
    assert len(split.dev) == 20
    assert Counter(int(2 * label) for label in split.dev.labels) == dict.fromkeys(range(10), 2)


def test_several_labels_a_row_keep_their_shares() -> None:
    """A label that is a tuple of classes needs no group to be split so."""
    several = Task(name="mood", text="text", label="mood", kind="multilabel", labels=("0", "1", "2"))
    rng = np.random.default_rng(0)
    labels = [tuple(np.flatnonzero(rng.random(3) < (0.5, 0.3, 0.1)).tolist()) for _ in range(500)]
    split = split_of(several, rows_of(labels, [()] * 500))
    held, whole = (label_tensor(several, each).sum(0).numpy() for each in (split.dev.labels, labels))
    assert len(split.dev) == 50
    assert np.abs(held - whole / 10).max() <= 1


def test_a_few_large_groups() -> None:
    data = rows_of([row % 2 for row in range(90)], [(f"u{row // 30}",) for row in range(90)])
    split = split_of(USER, data)
    assert (len(split.dev), split.groups, split.dev_groups) == (30, 3, 1)
    # The only group with rows of a class stays in train.
    labels = [2 if row < 30 else row % 2 for row in range(90)]
    dev = {
        group
        for seed in range(8)
        for group in groups(split_of(USER, rows_of(labels, [(f"u{row // 30}",) for row in range(90)]), seed).dev)
    }
    assert dev == {"u1", "u2"}
    message = (
        r"must have at least 2 groups \(tasks\.mood\.group\) with rows of one class to split off dev, got 1 in all"
    )
    with pytest.raises(DataError, match=message):
        split_of(USER, rows_of([0, 1, 0], [("u",)] * 3))


def pair_rows() -> list[dict[str, Any]]:
    """Pairs of 200 questions; each tenth set of them is a chain, whose ends meet only through others."""
    rng, rows = np.random.default_rng(0), []
    for first in range(0, 200, 4):
        chain = [first, first + 1, first + 2, first + 3]
        edges = [*itertools.pairwise(chain), (chain[3], chain[1])]
        for a, b in edges:
            rows.append(
                {"a": f"question {a}", "b": f"question {b}", "qid1": a, "qid2": b, "same": int(rng.integers(2))}
            )
    return [rows[place] for place in rng.permutation(len(rows))]


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("columns", [("qid1", "qid2"), ("a", "b")])
def test_no_question_is_in_pairs_of_both_sides(memory: bool, columns: Any, tmp_path: Path) -> None:
    rows, file = pair_rows(), tmp_path / "pairs.csv"
    task = Task(name="same", text=("a", "b"), label="same", labels=("0", "1"), group=columns)
    if memory:
        given = rows_by_task({"same": {"train": pd.DataFrame(rows)}}, [task])
    else:
        pd.DataFrame(rows).to_csv(file, index=False)
        given, task = {}, Task(name="same", text=("a", "b"), label="same", labels=("0", "1"), group=columns, train=file)
    config = RunConfig(encoder=EncoderConfig(), train=TrainConfig(), tasks=(task,))
    data = prepare(config, given=given)
    train, dev = ({text for row in each["same"].examples for text in row.texts} for each in (data.train, data.dev))
    assert not train & dev
    assert len(train | dev) == 200
    assert data.notes[-1:] == [f"same: dev is 5 of 50 groups by {' and '.join(columns)}, with 20 of 200 rows"]
    assert read_split(config, "dev", given=given) == data.dev
    # Without groups they are on both.
    ungrouped = RunConfig(
        encoder=EncoderConfig(), train=TrainConfig(), tasks=(Task(**{**vars_of(task), "group": None}),)
    )
    data = prepare(ungrouped, given=given)
    train, dev = ({text for row in each["same"].examples for text in row.texts} for each in (data.train, data.dev))
    assert train & dev


def vars_of(task: Task) -> dict[str, Any]:
    return {"name": task.name, **task.to_dict()}


def test_the_column_must_be_there(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,mood\n" + "a film,0\nthe film,1\n" * 10, encoding="utf-8")
    task = Task(**{**vars_of(USER), "train": str(file)})
    config = RunConfig(encoder=EncoderConfig(), train=TrainConfig(), tasks=(task,))
    with pytest.raises(DataError, match=r"rows\.csv:1: the columns must include 'user'"):
        prepare(config)
    with pytest.raises(DataError, match=r"the columns must include 'user'"):
        rows_by_task({"mood": {"train": [{"text": "a film", "mood": 0}]}}, [USER])
    # Dev rows of its own need no groups, which is said.
    own = Task(**{**vars_of(task), "dev": str(file)})
    data = prepare(RunConfig(encoder=EncoderConfig(), train=TrainConfig(), tasks=(own,)))
    assert data.notes[1:] == ["mood: group is not used, since dev has rows of its own"]


@pytest.mark.parametrize("group", [("user", "thread"), "mood"])
def test_settings_that_can_not_be(group: Any) -> None:
    with pytest.raises(ConfigError, match=r"^tasks\.mood\.group must be one column, or two for a pair, and not the"):
        Task(name="mood", text="text", label="mood", group=group)
