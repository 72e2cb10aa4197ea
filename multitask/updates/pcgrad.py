"""Gradient surgery (PCGrad): Yu et al. 2020, arXiv 2001.06782."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["pcgrad"]


def pcgrad(gram: Tensor, rng: np.random.Generator) -> Tensor:
    """Compute the weights of the sum of the tasks' gradients, each projected off those it conflicts with.

    Source: Yu et al. 2020 (arXiv 2001.06782), algorithm 1: for each task, over the other tasks in random order,
    g_i <- g_i - (g_i . g_j) / |g_j|^2 g_j where g_i . g_j < 0, with the original g_j; the projected gradients are
    summed. Each is a combination of the original ones, so the projections are done on coefficients.

    :param gram: (tasks, tasks), inner products of the tasks' gradients.
    :param rng: draws the order of the others for each task.
    :return: (tasks,), the weights.
    """
    tasks, inner = len(gram), gram.tolist()
    totals = [0.0] * tasks
    for i in range(tasks):
        coefficients = [float(i == k) for k in range(tasks)]
        for j in rng.permutation([k for k in range(tasks) if k != i]).tolist():
            along = sum(coefficients[k] * inner[k][j] for k in range(tasks))
            if along < 0 and inner[j][j] > 0:
                coefficients[j] -= along / inner[j][j]
        totals = [total + own for total, own in zip(totals, coefficients, strict=True)]
    return torch.tensor(totals, dtype=torch.float64)
