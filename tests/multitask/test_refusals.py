"""What training refuses before a step is taken, and names that torch has taken."""

import math
from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minbert.token_batch import TokenBatch
from multitask.__main__ import main
from multitask.data.batches import Batch
from multitask.data.examples import infer_labels, iter_examples
from multitask.errors import ConfigError, DataError, RunError
from multitask.model.losses import task_loss
from multitask.settings.choices import UPDATES
from multitask.settings.config import TrainConfig
from multitask.settings.task import Task
from multitask.updates.stepper import Stepper

Tasks = tuple[Task, ...]


def same_rates(tasks: Tasks) -> list[Task]:
    return [replace(task, lr=1e-3, weight_decay=0.0) for task in tasks]


@pytest.mark.parametrize("kind", list(UPDATES))
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_stops_before_any_step(
    make_model: Any, make_batches: Any, three_tasks: Tasks, kind: str, clip: float | None, state_of: Any
) -> None:
    """The loss is finite, its gradient has a norm beyond float64's range."""
    tasks = same_rates(three_tasks)
    tasks[0] = replace(tasks[0], loss_weight=1e200)
    model = make_model(tasks)
    update = Stepper(model, TrainConfig(update=kind, clip=clip), np.random.default_rng(0))
    batches = make_batches(model)
    before = state_of(model)
    with pytest.raises(RunError, match=r"sst.*the gradient's norm is (inf|nan), no step was taken"):
        update.round({"sst": batches["sst"]} if kind == "separate" else batches, 1.0)
    after = state_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("kind", list(UPDATES))
@pytest.mark.parametrize("weight", [1e200, float("inf")], ids=["gradient", "loss"])
def test_a_step_that_is_not_finite_is_skipped_whole(
    make_model: Any, make_batches: Any, three_tasks: Tasks, kind: str, weight: float, state_of: Any
) -> None:
    """Of separate updates that task's alone; the moments stay as they are, too."""
    tasks = same_rates(three_tasks)
    model = make_model(tasks)
    settings = TrainConfig(update=kind, on_nonfinite="skip")
    update = Stepper(model, settings, np.random.default_rng(0))
    batches = make_batches(model)
    update.round(batches, 1.0)
    model.tasks["sst"] = copy(tasks[0])
    object.__setattr__(model.tasks["sst"], "loss_weight", weight)
    before, moments = state_of(model), [deepcopy(each.state_dict()["state"]) for each in update.optimizers.values()]
    records = update.round({"sst": batches["sst"]} if kind == "separate" else batches, 1.0)
    assert {record.loss for record in records.values()} == {record.grad_norm for record in records.values()} == {None}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    for then, optimizer in zip(moments, update.optimizers.values(), strict=True):
        now = optimizer.state_dict()["state"]
        assert all(torch.equal(then[i][key], now[i][key]) for i in then for key in then[i])
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", list(UPDATES))
def test_a_skipped_step_leaves_nothing_behind(
    make_model: Any, make_batches: Any, three_tasks: Tasks, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Infinite gradients once, then the same rounds as without them, to the bit."""
    found = []
    for spoiled in (False, True):
        model = make_model(same_rates(three_tasks))
        update = Stepper(model, TrainConfig(update=kind, on_nonfinite="skip"), np.random.default_rng(0))
        if spoiled:
            layer = model.encoder_of("sst").layers[0].output.weight
            hook = layer.register_hook(lambda gradient: gradient * math.inf)
            records = update.round(make_batches(model, seed=1), 1.0)
            assert {record.loss for record in records.values()} == {None}
            hook.remove()
            update.order_rng.bit_generator.state = np.random.default_rng(0).bit_generator.state
        for seed in (2, 3):
            records = update.round(make_batches(model, seed=seed), 1.0)
            assert all(math.isfinite(record.loss) for record in records.values())
        found.append(model.state_dict())
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


@pytest.mark.parametrize("kind", ["combined", "pcgrad"])
def test_one_task_with_nothing_to_train_is_an_error_too(make_model: Any, three_tasks: Tasks, kind: str) -> None:
    cosine = replace(three_tasks[2], input="separate", pooling="mean", head="cosine")
    model = make_model(same_rates((*three_tasks[:2], cosine)))
    model.encoders.requires_grad_(False)
    with pytest.raises(ConfigError, match="task sts has nothing to train: encoder.freeze is true"):
        Stepper(model, TrainConfig(update=kind), np.random.default_rng(0))


@pytest.mark.parametrize("kind", list(UPDATES))
def test_nothing_to_train_is_an_error_that_says_so(make_model: Any, kind: str) -> None:
    cosine = Task(
        name="sts", text=("a", "b"), label="y", kind="regression", labels=(0.0, 5.0), input="separate",
        pooling="mean", head="cosine",
    )  # fmt: skip
    model = make_model([cosine])
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="has nothing to train: encoder.freeze is true"):
        Stepper(model, TrainConfig(update=kind), np.random.default_rng(0))


def test_a_batch_of_rows_that_weigh_nothing_has_no_loss_and_no_gradient() -> None:
    task = Task(name="t", text=("a",), label="y", labels=("x", "y"), class_weights=(0.0, 1.0))
    outputs = torch.randn(3, 2, requires_grad=True)
    loss = task_loss(task, outputs, torch.tensor([0, 0, 0]))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(outputs.grad, torch.zeros(3, 2))


@pytest.mark.parametrize("name", ["training", "keys", "type"])
def test_a_name_that_torch_has_taken_is_refused(make_model: Any, three_tasks: Tasks, name: str) -> None:
    with pytest.raises(ConfigError, match=f"the name of a task or an encoder must not be .*, got '{name}'"):
        make_model([replace(three_tasks[0], name=name)])


def test_a_batch_moves_whole() -> None:
    tokens = TokenBatch(*(torch.ones(2, 3, dtype=torch.int64) for _ in range(3)))
    batch = Batch(tokens, torch.zeros(2)).to(torch.device("meta"))
    assert {tensor.device.type for tensor in (*batch.tokens.values(), batch.labels)} == {"meta"}


def test_lines_that_end_in_carriage_returns_alone_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"id,text\r1,good\r2,bad\r")
    task = Task(name="t", text=("text",), label="y", labels=("x", "y"))
    with pytest.raises(DataError, match="rows.csv must end its lines with line feeds, got carriage returns alone"):
        list(iter_examples(path, task))


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ("", "must have rows below its header, got none"),
        ("a\tpos\nb\tpos\n", ": column 'y' must have at least two classes, got only 'pos'"),
    ],
)
def test_labels_that_are_no_two_classes_are_trouble_with_the_file(tmp_path: Path, rows: str, found: str) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text(f"text\ty\n{rows}")
    with pytest.raises(DataError, match=f"rows.tsv ?{found}"):
        infer_labels(Task(name="t", text=("text",), label="y", train=str(path)))


@pytest.mark.parametrize(
    "words", [["train", "--out", "x" * 256], ["train", "--threads", "3000000000"], ["predict", "a/" + "y" * 300]]
)
def test_values_that_no_system_takes_are_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
