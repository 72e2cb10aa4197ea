"""A linear probe: the affine map of frozen features that fits a task's labels best, by the task's own loss.

A decoder whose head is linear starts from it, so that training the whole model begins with what the encoder knows
already and does not bend it to a head of random weights.

Source: Kumar et al. 2022 (arXiv 2202.10054), section 4, linear probing and then fine-tuning.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from multitask.model.losses import task_loss
from multitask.settings.task import Task

__all__ = ["FOLDS", "cross_validate", "fit_probe"]

FOLDS = 5
# Factor of the weights' squares beside the summed loss, for features whose mean square norm is 1. Our choice, on few
# rows of SST-5, SST-2, Quora and STS (docs/few_rows.md); for classes it is scikit-learn's C = 1.
PENALTY_OF_CLASSES, PENALTY_OF_NUMBERS = 0.5, 4.0
# Of a free feature of variance 1: almost none, but where it alone tells classes apart its weight must not grow without
# end, and training begin where the loss is flat. One that varies less than ROUNDING is rounding and counts for less.
PENALTY_OF_FREE, ROUNDING = 0.01, 1e-3


def fit_probe(task: Task, features: Tensor, labels: Tensor, free: int = 0) -> tuple[Tensor, Tensor]:
    """Minimize the summed loss of ``features @ weight.T + bias`` and a penalty on the weights, by L-BFGS.

    :param features: (rows, features).
    :param labels: (rows,), as data.batches.label_tensor gives them.
    :param free: features, the last ones, whose weights are hardly penalized; the bias is not at all.
    :return: the weight (num_outputs, features) and the bias (num_outputs,), float64.
    """
    x = features.double()
    center, penalized = x.mean(0), x.shape[1] - free
    size = x[:, :penalized].square().sum(1).mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    x = x - center
    scale = torch.cat([size.expand(penalized), x[:, penalized:].square().mean(0).sqrt().clamp_min(ROUNDING)])
    x /= scale
    plain = replace(task, loss_weight=1.0, reduction="mean")
    classes = task.rules.has_classes
    penalties = torch.full((x.shape[1],), PENALTY_OF_CLASSES if classes else PENALTY_OF_NUMBERS, dtype=torch.float64)
    penalties[penalized:] = PENALTY_OF_FREE
    # Numbers may be of any size, but L-BFGS has absolute tolerances: outputs are middle + spread * (what is fitted).
    middle, spread = (0.0, 1.0) if classes else (labels.double().mean(), labels.double().std(correction=0) or 1.0)
    outputs, width = task.num_outputs, x.shape[1]

    def parts(flat: Tensor) -> tuple[Tensor, Tensor]:
        return spread * flat[outputs:].view(outputs, width), middle + spread * flat[:outputs]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        both = torch.from_numpy(flat).requires_grad_()
        weight, bias = parts(both)
        loss = len(x) * task_loss(plain, x @ weight.T + bias, labels)
        loss = (loss + (penalties * weight.square()).sum()) / unit
        (gradient,) = torch.autograd.grad(loss, both)
        return loss.item(), gradient.numpy()

    with torch.enable_grad():
        start, unit = np.zeros(outputs * (width + 1)), 1.0
        if not classes:
            unit = objective(start)[0] / len(x) or 1.0
        found = scipy.optimize.minimize(
            objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "maxfun": 1500, "gtol": 1e-6}
        )
    weight, bias = parts(torch.from_numpy(found.x))
    weight = weight / scale
    return weight, bias - weight @ center


def cross_validate(
    task: Task, features: Tensor, labels: Tensor, free: int = 0, units: Sequence[int] | None = None
) -> Tensor:
    """Return the outputs of each row by a probe that was fitted without it and its part of the rows.

    The units are dealt to FOLDS parts in the order of their labels, so that each has its share of the classes.

    :param units: by row the number of those that it must not be parted from, two units at least; unset: each its own.
    :return: (rows, num_outputs), float64.
    """
    _, first, unit = np.unique(
        np.arange(len(labels)) if units is None else units, return_index=True, return_inverse=True
    )
    order = np.lexsort(labels.numpy()[first].reshape(len(first), -1).T)
    part = np.empty(len(order), dtype=np.int64)
    part[order] = np.arange(len(order)) % FOLDS
    part = part[unit]
    result = torch.zeros(len(labels), task.num_outputs, dtype=torch.float64)
    for held in np.unique(part):
        rest, out = torch.from_numpy(part != held), torch.from_numpy(part == held)
        weight, bias = fit_probe(task, features[rest], labels[rest], free)
        result[out] = features[out].double() @ weight.T + bias
    return result
