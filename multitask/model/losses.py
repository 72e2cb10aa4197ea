"""A task's loss and its predictions; settings/kinds.py has what differs between kinds."""

from collections.abc import Sequence

import torch
from torch import Tensor

from multitask.errors import ConfigError
from multitask.settings.checks import shown
from multitask.settings.distillation import SoftTargets
from multitask.settings.task import Task

__all__ = ["best_threshold", "predicted_values", "task_loss"]


def task_loss(
    task: Task, outputs: Tensor, labels: Tensor, whole: Tensor | None = None, soft: SoftTargets | None = None
) -> Tensor:
    """Return the scalar loss of a batch: its rows' losses by the task's kind, times ``loss_weight``.

    The mean over the rows that are there, or their sum with ``reduction="sum"``, which the report's equation 3
    writes; the mean keeps one learning rate fit for any batch size. Class weights scale each row by its class's
    weight; their mean divides by the sum of the rows' weights, as torch's cross-entropy does.

    :param outputs: (batch, num_outputs), computed on in float32 at least.
    :param labels: (batch,), or (batch, classes), as data.batches.label_tensor gives them.
    :param whole: labels of the whole batch (whole, ...), where these rows are one process's share of it: the mean
        divides by all of them, so that the shares' losses, and their gradients, add up to the batch's.
    :param soft: what the rows learn of teachers (Hinton et al. 2015, arXiv 1503.02531, section 2): a row's loss is
        weight times its distance to their outputs, plus 1 - weight times that of its label. A row whose label is -1, or
        NaN of numbers and of several classes, has none, and the distance alone.
    :return: (), in the type of the outputs.
    :raises ConfigError: for a kind of one's own whose losses are not one a row: they would be broadcast to other sums.
    """
    if outputs.dtype in (torch.bfloat16, torch.float16):
        outputs = outputs.float()
    rows = task.rules.row_losses(outputs, labels if soft is None else _filled(labels))  # (batch,)
    if not torch.compiler.is_compiling():
        _check(task, "row_losses", rows, labels.shape[:1])
    if soft is not None:
        distances = task.rules.soft_losses(outputs, soft.outputs.to(outputs.dtype), soft.temperature)
        _check(task, "soft_losses", distances, labels.shape[:1])
        rows = soft.weight * distances + (1 - soft.weight) * rows.where(_labelled(labels), rows.new_zeros(()))
    total = (rows * _weights(task, labels, rows)).sum()
    if task.reduction == "sum":
        return task.loss_weight * total
    weight = _weights(task, labels if whole is None else whole, rows).sum()
    # A batch of rows that all weigh nothing has a loss of 0, not of 0 / 0.
    return task.loss_weight * total / weight.clamp_min(torch.finfo(rows.dtype).tiny)


def _weights(task: Task, labels: Tensor, like: Tensor) -> Tensor:
    """Return each row's weight (rows,), in the type and on the device of ``like``."""
    if task.class_weights is None:
        return torch.ones(labels.shape[:1], dtype=like.dtype, device=like.device)
    weights = torch.tensor(task.class_weights, dtype=like.dtype, device=like.device)[labels.clamp_min(0)]
    return weights.where(_labelled(labels), weights.new_ones(()))


def _labelled(labels: Tensor) -> Tensor:
    """Return which rows have a label, bool (rows,)."""
    if not labels.is_floating_point():
        return labels >= 0
    return ~labels.isnan() if labels.dim() == 1 else ~labels.isnan().any(1)


def _filled(labels: Tensor) -> Tensor:
    """Return labels with one that any task has where there is none, so that every row has a loss."""
    return labels.nan_to_num(0.0) if labels.is_floating_point() else labels.clamp_min(0)


def predicted_values(task: Task, outputs: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the predicted classes or numbers (batch,), and probabilities (batch, classes) or None.

    Of a kind with any number of classes a row: 0 or 1 for each (batch, classes), by the task's ``threshold`` if it has
    one and the kind gives probabilities.

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
    many = task.rules.many
    _check(task, "predict", values, (len(outputs), len(task.classes)) if many else outputs.shape[:1])
    if probabilities is not None:
        _check(task, "the probabilities of predict", probabilities, (len(outputs), len(task.classes)))
    if many and task.threshold is not None and probabilities is not None:
        return (probabilities >= task.threshold).long(), probabilities
    if task.rules.has_classes:
        classes = 2 if many else len(task.classes)
        if values.is_floating_point() or ((values < 0) | (values >= classes)).any():
            raise ConfigError(
                f"predict of tasks.{task.name}.kind {task.kind!r} must return whole numbers from 0 to {classes - 1},"
                f" got {shown(values.tolist())}"
            )
    return values, probabilities


def best_threshold(probabilities: Tensor, labels: Tensor) -> float:
    """Return the one threshold for all classes at which the micro F1 of ``probabilities >= threshold`` is highest.

    It lies half-way between two probabilities that occur; of equal ones it is the nearest to one half, which it is
    without labels. Our choice: a threshold for each class would be chosen on the few rows that have it.

    :param probabilities: (rows, classes) float32, ``labels`` of the same shape, 0 or 1.
    """
    values, order = probabilities.flatten().sort(descending=True, stable=True)
    hits = labels.flatten()[order].double().cumsum(0)
    if not len(hits) or not hits[-1]:
        return 0.5
    scores = 2 * hits / (torch.arange(1, len(hits) + 1) + hits[-1])
    below = torch.cat([values[1:], values.new_zeros(1)])
    between = values.double().add(below).div(2).to(values.dtype)  # in the type that it is compared in
    between = torch.where(between > below, between, values)
    scores[values == below] = -1  # a threshold can't part equal ones
    best = between[scores == scores.max()]
    return float(best[(best - 0.5).abs().argmin()])


def _check(task: Task, what: str, found: object, shape: Sequence[int]) -> None:
    """Check the shape of what a task's kind computed; ConfigError says both."""
    if not isinstance(found, Tensor) or found.shape != torch.Size(shape):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ConfigError(
            f"{what} of tasks.{task.name}.kind {task.kind!r} must return a tensor {tuple(shape)}, got {got}"
        )
