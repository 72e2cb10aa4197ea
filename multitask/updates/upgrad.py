"""Unconflicting projection of gradients (UPGrad): Quinton and Rey 2024, arXiv 2406.16232."""

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

__all__ = ["upgrad"]

# Added to the squared norms, which are 1: of the size of the Gram matrix's own rounding errors, in float32.
RIDGE = 1e-6


def upgrad(gram: Tensor, rng: np.random.Generator) -> Tensor:
    """Compute the weights of the mean of the tasks' gradients, each projected onto the cone that harms no task.

    Source: Quinton and Rey 2024 (arXiv 2406.16232), section 2.2 and proposition 1. That cone is of all directions
    whose inner product with no task's gradient is negative. The projection of gradient i is the combination of all of
    them with the weights w >= e_i that make it shortest: the minimum of w^T G w. With w = e_i + x and G = A^T A it is a
    least-squares problem in x >= 0.

    The cone does not depend on the gradients' lengths, so they are scaled to 1 first. The authors' code divides G by
    its trace and adds 1e-4 to its diagonal, which gives up tasks whose gradients are a hundredth of the others'.

    :param gram: (tasks, tasks), inner products of the tasks' gradients.
    :param rng: not used, since nothing is drawn.
    :return: (tasks,), the weights; 1 / tasks each where no two gradients conflict.
    """
    inner = gram.numpy()
    tasks, norms = len(inner), np.sqrt(inner.diagonal())
    if not np.isfinite(inner).all():
        return torch.full((tasks,), float("nan"), dtype=torch.float64)  # which put refuses
    lengths = np.where(norms > 0, norms, 1.0)  # a gradient of zero conflicts with none
    values, vectors = np.linalg.eigh(inner / np.outer(lengths, lengths) + RIDGE * np.eye(tasks))
    root = np.sqrt(values.clip(0))[:, None] * vectors.T  # (tasks, tasks), A
    totals = np.zeros(tasks)
    for own in range(tasks):
        more, _ = nnls(root, -root[:, own], maxiter=100 * tasks)
        totals += norms[own] * (np.eye(tasks)[own] + more) / lengths
    zeros = norms == 0
    return torch.from_numpy(np.where(zeros, 1.0, totals) / tasks)
