"""The kind multilabel: what its cells may be, its settings, its loss, its threshold."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from multitask.data.batches import label_tensor
from multitask.data.examples import Dataset, Example, infer_labels, read_examples
from multitask.data.memory import memory_rows
from multitask.data.splits import hold_out
from multitask.errors import ConfigError, DataError
from multitask.model.losses import best_threshold, predicted_values, task_loss
from multitask.settings.task import Task

MOOD = {"name": "mood", "text": "text", "label": "mood", "kind": "multilabel"}
LABELS = ("fear", "joy", "wait")


def read(*cells: Any, **settings: Any) -> Dataset:
    task = Task(**{**MOOD, **settings})
    rows = memory_rows([{"text": f"text {row}", "mood": cell} for row, cell in enumerate(cells)], task, "rows")
    task = infer_labels(task, rows)
    return read_examples(rows, task)


@pytest.mark.parametrize("form", [list, tuple, np.array, lambda names: str(list(names)).replace("'", '"')])
def test_a_cell_is_a_list(form: Any) -> None:
    data = read(form(["joy", "fear"]), form([]), form(["wait"]), None, "", float("nan"), labels=LABELS)
    assert data.labels == [(0, 1), (), (2,)]
    assert [str(row) for row in data.skipped] == [
        f"rows, row {row}: column 'mood' must not be empty, got {got}"
        for row, got in ((4, None), (5, "''"), (6, "nan"))
    ]


def test_a_cell_with_a_separator() -> None:
    data = read("joy; fear", ";", "wait;", "", "7.0", labels=(*LABELS, 7), label_separator=";")
    assert data.labels == [(0, 1), (), (2,), (3,)]
    assert len(data.skipped) == 1


def test_labels_are_those_of_the_training_rows() -> None:
    task = Task(**MOOD)
    rows = [{"text": "a", "mood": cell} for cell in (["joy", "None"], [], ["fear"], None, ["joy"])]
    assert infer_labels(task, memory_rows(rows, task, "rows")).labels == ("None", "fear", "joy")
    numbers = [{"text": "a", "mood": cell} for cell in ([10, 2.0], ["2"], [1])]
    assert infer_labels(task, memory_rows(numbers, task, "rows")).labels == ("1", "2", "10")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("joy|fear", "must be a JSON list, unless tasks.mood.label_separator is set, to '|' say, got 'joy|fear'"),
        ("joy", "must be a JSON list, unless tasks.mood.label_separator is set, to ';' say, got 'joy'"),
        ("['joy']", "must be a JSON list, unless"),
        (["joy", "rage"], "must be one of the classes fear, joy, wait, got ['joy', 'rage']"),
        (["joy", "joy"], "must have each label once, got ['joy', 'joy']"),
        (["joy", None], "must be a list of strings or numbers, got ['joy', None]"),
        ([["joy"]], "must be a list of strings or numbers, got [['joy']]"),
        ([""], "must be a list of strings or numbers, got ['']"),
        ({"joy"}, "must be a list of labels, got {'joy'}"),
        (3, "must be a list of labels, got 3"),
    ],
)
def test_other_cells_are_one_sentence(cell: Any, message: str) -> None:
    for labels in (LABELS, None):
        if labels is None and cell == ["joy", "rage"]:
            continue
        with pytest.raises(DataError) as caught:
            read(cell, labels=labels)
        assert f"rows, row 1: column 'mood' {message}" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"kind": "binary", "labels": ("a", "b"), "threshold": 0.3},
            "threshold must be left out for a binary, got",
        ),
        ({"kind": "regression", "label_separator": ";"}, "label_separator must be left out for a regression"),
        ({"threshold": 1.0}, "tasks.mood.threshold must be finite and at least 0 and below 1"),
        ({"label_separator": ""}, "must be a non-empty string"),
        ({"class_weights": (1, 2)}, "class_weights must be left out for a multilabel"),
        ({"metric": "accuracy"}, "metric of a multilabel must be one of micro_f1, macro_f1, got 'accuracy'"),
        ({"labels": ("a",)}, "labels must be at least two classes"),
        ({"kind": "classification", "metric": "micro_f1"}, "must be one of accuracy, macro_f1, mcc, f1, f1:LABEL, got"),
        ({"text": ("a", "b"), "input": "separate", "head": "cosine"}, "'cosine' must have a regression"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Task(**{**MOOD, **settings})
    assert message in str(caught.value)


def test_the_loss_is_torchs() -> None:
    task = Task(**{**MOOD, "labels": LABELS})
    generator = torch.Generator().manual_seed(0)
    outputs, labels = torch.randn(5, 3, generator=generator), label_tensor(task, [(0, 1), (), (2,), (0, 1, 2), (1,)])
    assert labels.dtype == torch.float32
    assert labels.tolist()[0] == [1, 1, 0]
    torch.testing.assert_close(task_loss(task, outputs, labels), nn.BCEWithLogitsLoss()(outputs, labels))
    shares = [task_loss(task, outputs[rows], labels[rows], whole=labels) for rows in (slice(2), slice(2, 5))]
    torch.testing.assert_close(sum(shares), task_loss(task, outputs, labels))


def test_predictions_follow_the_threshold() -> None:
    outputs = torch.tensor([[-2.0, 0.0, 2.0]])
    values, probabilities = predicted_values(Task(**{**MOOD, "labels": LABELS}), outputs)
    assert values.tolist() == [[0, 1, 1]]
    assert probabilities is not None
    assert probabilities.sum().item() == pytest.approx(1.5)
    task = Task(**{**MOOD, "labels": LABELS, "threshold": 0.1})
    assert predicted_values(task, outputs)[0].tolist() == [[1, 1, 1]]
    assert task.rules.spell(task, [1, 0, 1]) == ("fear", "wait")


def micro(probabilities: torch.Tensor, labels: torch.Tensor, threshold: float) -> float:
    predicted = (probabilities >= threshold).double()
    total = predicted.sum() + labels.sum()
    return float(2 * (predicted * labels).sum() / total) if total else 0.0


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_is_better_than_the_best(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(30, 4, generator=generator) < 0.3).float()
    probabilities = (torch.rand(30, 4, generator=generator) + labels).div(2)
    if seed % 2:
        probabilities = probabilities.mul(8).round().div(8)  # many are equal
    best = micro(probabilities, labels, best_threshold(probabilities, labels))
    every = torch.linspace(0, 1, 2001).tolist()
    assert best == max(micro(probabilities, labels, threshold) for threshold in every)


def test_thresholds_at_the_ends() -> None:
    probabilities = torch.tensor([[0.9, 0.2]])
    assert best_threshold(probabilities, torch.zeros(1, 2)) == 0.5
    assert best_threshold(probabilities[:0], torch.zeros(0, 2)) == 0.5
    assert best_threshold(probabilities, torch.tensor([[1.0, 0.0]])) == pytest.approx(0.55)
    assert best_threshold(probabilities, torch.ones(1, 2)) == pytest.approx(0.1)
    near = torch.tensor([[0.5, 0.5]]).nextafter(torch.tensor([[0.0, 1.0]]))  # no number is between these
    assert micro(near, torch.tensor([[0.0, 1.0]]), best_threshold(near, torch.tensor([[0.0, 1.0]]))) == 1


def test_a_split_gives_each_label_its_share() -> None:
    labels = [(0,)] * 300 + [(0, 1)] * 100 + [()] * 50 + [(1, 2)] * 40 + [(0, 3)]
    data = Dataset("rows", [Example(str(row), ("x",), label, row) for row, label in enumerate(labels)])
    task = Task(**{**MOOD, "labels": ("a", "b", "c", "d")})
    (split,) = hold_out([(task, data)], seed=1)
    train, dev = split.train, split.dev
    assert len(dev) == 49
    counts = [sum(label == of for label in dev.labels) for of in ((0,), (0, 1), (), (1, 2), (0, 3))]
    assert np.abs(np.array(counts) - [30, 10, 5, 4, 0]).max() <= 1
    assert (0, 3) in train.labels  # the only row of a label


def test_rows_of_one_line_can_be_parted() -> None:
    data = Dataset("rows.json", [Example(str(row), ("x",), (row % 2,), 1, (), row + 1) for row in range(40)])
    (split,) = hold_out([(Task(**{**MOOD, "labels": ("a", "b")}), data)], seed=1)
    assert (len(split.train), len(split.dev)) == (36, 4)
