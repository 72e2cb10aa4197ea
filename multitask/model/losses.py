"""The loss of each kind of task, and its labels as a tensor."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from multitask.settings.task import Task

__all__ = ["label_tensor", "predicted_values", "task_loss"]


def label_tensor(task: Task, labels: Sequence[int | float]) -> Tensor:
    """Labels (rows,): int64 class indices, or float32 values of a regression, so that 3.5 stays 3.5."""
    return torch.tensor(labels, dtype=torch.float32 if task.kind == "regression" else torch.int64)


def task_loss(task: Task, outputs: Tensor, labels: Tensor, whole: Tensor | None = None) -> Tensor:
    """Scalar loss of a batch: cross-entropy, binary cross-entropy or squared error, times ``loss_weight``.

    The mean over the rows that are there, or their sum with ``reduction="sum"``, which the report's equation 3
    writes; the mean keeps one learning rate fit for any batch size. Class weights scale each row by its class's
    weight; their mean divides by the sum of the rows' weights, as torch's cross-entropy does.

    :param outputs: (batch, num_outputs), computed on in float32 at least.
    :param labels: (batch,) as ``label_tensor`` gives them.
    :param whole: labels of the whole batch (whole,), where these rows are one process's share of it: the mean divides
        by all of them, so that the shares' losses, and their gradients, add up to the batch's.
    """
    if outputs.dtype in (torch.bfloat16, torch.float16):
        outputs = outputs.float()
    if task.kind == "regression":
        rows = (outputs.squeeze(1) - labels.to(outputs.dtype)).square()
    elif task.kind == "classification":
        rows = F.cross_entropy(outputs, labels, reduction="none")
    else:
        rows = F.binary_cross_entropy_with_logits(outputs.squeeze(1), labels.to(outputs.dtype), reduction="none")
    total = (rows * _weights(task, labels, rows)).sum()
    if task.reduction == "sum":
        return task.loss_weight * total
    weight = _weights(task, labels if whole is None else whole, rows).sum()
    # A batch of rows that all weigh nothing has a loss of 0, not of 0 / 0.
    return task.loss_weight * total / weight.clamp_min(torch.finfo(rows.dtype).tiny)


def _weights(task: Task, labels: Tensor, like: Tensor) -> Tensor:
    """What each row counts, in the type of ``like``."""
    if task.class_weights is None:
        return torch.ones(labels.shape, dtype=like.dtype, device=like.device)
    return torch.tensor(task.class_weights, dtype=like.dtype, device=like.device)[labels]


def predicted_values(task: Task, outputs: Tensor) -> tuple[Tensor, Tensor | None]:
    """(batch, num_outputs) -> the predicted class or value (batch,), and probabilities (batch, classes) or None."""
    outputs = outputs.float()
    if task.kind == "regression":
        return outputs.squeeze(1), None
    if task.kind == "classification":
        probabilities = outputs.softmax(1)
    else:
        positive = outputs.squeeze(1).sigmoid()
        probabilities = torch.stack([1 - positive, positive], dim=1)
    return probabilities.argmax(1), probabilities
