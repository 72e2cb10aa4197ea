"""What training refuses before a step is taken, and names that torch has taken."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from minbert.token_batch import TokenBatch
from multitask.config import TrainConfig
from multitask.errors import ConfigError, RunError
from multitask.losses import task_loss
from multitask.tasks import Task
from multitask.updates import UPDATES, Batch

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
    update = UPDATES[kind](model, TrainConfig(update=kind, clip=clip), np.random.default_rng(0))
    batches = make_batches(model)
    before = state_of(model)
    with pytest.raises(RunError, match=r"sst.*the gradient's norm is (inf|nan), no step was taken"):
        update.round({"sst": batches["sst"]} if kind == "separate" else batches, 1.0)
    after = state_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("kind", list(UPDATES))
def test_nothing_to_train_is_an_error_that_says_so(make_model: Any, kind: str) -> None:
    cosine = Task(
        name="sts", text=("a", "b"), label="y", kind="regression", labels=(0.0, 5.0), input="separate",
        pooling="mean", head="cosine",
    )  # fmt: skip
    model = make_model([cosine])
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="has nothing to train: encoder.freeze is true"):
        UPDATES[kind](model, TrainConfig(update=kind), np.random.default_rng(0))


def test_a_batch_of_rows_that_weigh_nothing_has_no_loss_and_no_gradient() -> None:
    task = Task(name="t", text=("a",), label="y", labels=("x", "y"), class_weights=(0.0, 1.0))
    outputs = torch.randn(3, 2, requires_grad=True)
    loss = task_loss(task, outputs, torch.tensor([0, 0, 0]))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(outputs.grad, torch.zeros(3, 2))


@pytest.mark.parametrize("name", ["training", "keys", "type"])
def test_a_name_that_torch_has_taken_is_refused(make_model: Any, three_tasks: Tasks, name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' can't be the name of a task or an encoder"):
        make_model([replace(three_tasks[0], name=name)])


def test_a_batch_moves_whole() -> None:
    tokens = TokenBatch(*(torch.ones(2, 3, dtype=torch.int64) for _ in range(3)))
    batch = Batch(tokens, torch.zeros(2)).to(torch.device("meta"))
    assert {tensor.device.type for tensor in (*batch.tokens.values(), batch.labels)} == {"meta"}
