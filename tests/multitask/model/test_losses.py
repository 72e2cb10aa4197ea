"""Losses by hand, and labels that keep their value on the way from the file."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from minbert.tokenizer import BertTokenizer
from multitask.data.batches import TaskData, label_tensor
from multitask.data.examples import read_examples
from multitask.model.losses import predicted_values, task_loss
from multitask.settings.task import Task


def make_task(kind: str = "classification", **values: Any) -> Task:
    labels = {"classification": ("x", "y", "z"), "binary": ("0", "1"), "regression": (0.0, 5.0)}[kind]
    return Task(**{"name": "t", "text": ("a",), "label": "y", "kind": kind, "labels": labels, **values})


def test_3_5_stays_3_5(tmp_path: Path, tiny_weights: Path) -> None:
    """From the file to the loss: an integer tensor on the way would make it 3, silently."""
    task, path = make_task("regression"), tmp_path / "sts.tsv"
    path.write_text("id\ta\ty\n1\ta film\t3.5\n2\tthe story\t0.2\n3\ta story\t4\n", encoding="utf-8")
    data = TaskData.build(task, read_examples(path, task).examples, BertTokenizer.from_pretrained(tiny_weights), 64)
    assert data.labels.dtype == torch.float32
    assert data.labels.tolist() == [3.5, pytest.approx(0.2), 4.0]
    assert data.batch(torch.tensor([0]).numpy()).labels.tolist() == [3.5]
    assert task_loss(task, torch.tensor([[3.5]]), data.labels[:1]).item() == 0
    assert task_loss(task, torch.tensor([[3.0]]), data.labels[:1]).item() == 0.25


def test_classes_are_whole_numbers() -> None:
    for kind in ("classification", "binary"):
        assert label_tensor(make_task(kind), [1, 0]).dtype == torch.int64


OUTPUTS = {
    "classification": [[0.2, -1.0, 3.0], [0.0, 0.5, -0.5], [2.0, 2.0, 1.0]],
    "binary": [[0.3], [-2.0], [4.0]],
    "regression": [[1.0], [2.5], [7.0]],
}
LABELS: dict[str, list[int | float]] = {"classification": [2, 0, 1], "binary": [1, 1, 0], "regression": [1.5, 2.5, 3.0]}


def rows_by_hand(kind: str) -> list[float]:
    """Each row's loss: minus the log of the label's probability, or the squared error."""
    losses = []
    for outputs, label in zip(OUTPUTS[kind], LABELS[kind], strict=True):
        if kind == "regression":
            losses.append((outputs[0] - label) ** 2)
        elif kind == "binary":
            one = 1 / (1 + math.exp(-outputs[0]))
            losses.append(-math.log(one if label == 1 else 1 - one))
        else:
            losses.append(-math.log(math.exp(outputs[int(label)]) / sum(map(math.exp, outputs))))
    return losses


@pytest.mark.parametrize("kind", list(OUTPUTS))
def test_loss_by_hand(kind: str) -> None:
    outputs, task = torch.tensor(OUTPUTS[kind]), make_task(kind)
    labels, rows = label_tensor(task, LABELS[kind]), rows_by_hand(kind)
    assert task_loss(task, outputs, labels).item() == pytest.approx(sum(rows) / 3, rel=1e-5)
    # The mean is over the rows that are there, as in the last, smaller batch of an epoch.
    assert task_loss(task, outputs[:2], labels[:2]).item() == pytest.approx(sum(rows[:2]) / 2, rel=1e-5)
    summed = make_task(kind, reduction="sum", loss_weight=0.5)
    assert task_loss(summed, outputs, labels).item() == pytest.approx(0.5 * sum(rows), rel=1e-5)
    assert task_loss(make_task(kind, loss_weight=3.0), outputs, labels).item() == pytest.approx(sum(rows), rel=1e-5)


@pytest.mark.parametrize("kind", ["classification", "binary"])
def test_class_weights(kind: str) -> None:
    factors = (0.5, 2.0, 3.0) if kind == "classification" else (0.5, 2.0)
    weights, rows = [factors[int(label)] for label in LABELS[kind]], rows_by_hand(kind)
    total = sum(w * row for w, row in zip(weights, rows, strict=True))
    for reduction, expected in (("mean", total / sum(weights)), ("sum", total)):
        task = make_task(kind, class_weights=factors, reduction=reduction)
        loss = task_loss(task, torch.tensor(OUTPUTS[kind]), label_tensor(task, LABELS[kind]))
        assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", list(OUTPUTS))
def test_half_outputs_are_widened(kind: str) -> None:
    outputs, task = torch.tensor(OUTPUTS[kind]).bfloat16(), make_task(kind)
    labels = label_tensor(task, LABELS[kind])
    loss = task_loss(task, outputs, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, task_loss(task, outputs.float(), labels))


def test_predicted_values() -> None:
    values, spread = predicted_values(make_task(), torch.tensor(OUTPUTS["classification"]))
    assert spread is not None
    assert values.tolist() == [2, 1, 0]
    assert torch.allclose(spread.sum(1), torch.ones(3))
    assert spread[1, 1].item() == pytest.approx(math.exp(0.5) / (1 + math.exp(0.5) + math.exp(-0.5)))
    values, spread = predicted_values(make_task("binary"), torch.tensor(OUTPUTS["binary"]))
    assert spread is not None
    assert values.tolist() == [1, 0, 1]
    assert spread[:, 1].tolist() == pytest.approx([1 / (1 + math.exp(-x)) for x in (0.3, -2.0, 4.0)])
    values, spread = predicted_values(make_task("regression"), torch.tensor(OUTPUTS["regression"]))
    assert spread is None
    assert values.tolist() == [1.0, 2.5, 7.0]
