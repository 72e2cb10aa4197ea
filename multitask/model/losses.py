"""A task's loss and its predictions; settings/kinds.py has what differs between kinds."""

from collections.abc import Sequence

import torch
from torch import Tensor

from multitask.errors import ConfigError
from multitask.settings.checks import shown
from multitask.settings.task import Task

__all__ = ["predicted_values", "task_loss"]


def task_loss(task: Task, outputs: Tensor, labels: Tensor, whole: Tensor | None = None) -> Tensor:
    """Return the scalar loss of a batch: its rows' losses by the task's kind, times ``loss_weight``.

    The mean over the rows that are there, or their sum with ``reduction="sum"``, which the report's equation 3
    writes; the mean keeps one learning rate fit for any batch size. Class weights scale each row by its class's
    weight; their mean divides by the sum of the rows' weights, as torch's cross-entropy does.

    :param outputs: (batch, num_outputs), computed on in float32 at least.
    :param labels: (batch,) as data.batches.label_tensor gives them.
    :param whole: labels of the whole batch (whole,), where these rows are one process's share of it: the mean divides
        by all of them, so that the shares' losses, and their gradients, add up to the batch's.
    :return: (), in the type of the outputs.
    :raises ConfigError: for a kind of one's own whose losses are not one a row: they would be broadcast to other sums.
    """
    if outputs.dtype in (torch.bfloat16, torch.float16):
        outputs = outputs.float()
    rows = task.rules.row_losses(outputs, labels)  # (batch,)
    if not torch.compiler.is_compiling():
        _check(task, "row_losses", rows, labels.shape)
    total = (rows * _weights(task, labels, rows)).sum()
    if task.reduction == "sum":
        return task.loss_weight * total
    weight = _weights(task, labels if whole is None else whole, rows).sum()
    # A batch of rows that all weigh nothing has a loss of 0, not of 0 / 0.
    return task.loss_weight * total / weight.clamp_min(torch.finfo(rows.dtype).tiny)


def _weights(task: Task, labels: Tensor, like: Tensor) -> Tensor:
    """Return each row's weight (rows,), in the type and on the device of ``like``."""
    if task.class_weights is None:
        return torch.ones(labels.shape, dtype=like.dtype, device=like.device)
    return torch.tensor(task.class_weights, dtype=like.dtype, device=like.device)[labels]


def predicted_values(task: Task, outputs: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the predicted classes or numbers (batch,), and probabilities (batch, classes) or None.

    :param outputs: (batch, num_outputs).
    :raises ConfigError: for a kind of one's own that predicts no classes, or not one for each row.
    """
    predicted = task.rules.predict(outputs.float())
    if not isinstance(predicted, tuple) or len(predicted) != 2:
        raise ConfigError(
            f"predict of tasks.{task.name}.kind {task.kind!r} must return predictions, and probabilities or None,"
            f" got {shown(predicted)}"
        )
    values, probabilities = predicted
    _check(task, "predict", values, outputs.shape[:1])
    if probabilities is not None:
        _check(task, "the probabilities of predict", probabilities, (len(outputs), len(task.classes)))
    if task.rules.has_classes:
        classes = len(task.classes)
        if values.is_floating_point() or ((values < 0) | (values >= classes)).any():
            raise ConfigError(
                f"predict of tasks.{task.name}.kind {task.kind!r} must return whole numbers from 0 to {classes - 1},"
                f" got {shown(values.tolist())}"
            )
    return values, probabilities


def _check(task: Task, what: str, found: object, shape: Sequence[int]) -> None:
    """Check the shape of what a task's kind computed; ConfigError says both."""
    if not isinstance(found, Tensor) or found.shape != torch.Size(shape):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ConfigError(
            f"{what} of tasks.{task.name}.kind {task.kind!r} must return a tensor {tuple(shape)}, got {got}"
        )
