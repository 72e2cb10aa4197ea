"""An update from a function: every task's gradient counts as if it had the mean of all norms."""

import numpy as np
from torch import Tensor

from multitask import UPDATES


@UPDATES.register("equal-norms")
def equal_norms(gram: Tensor, rng: np.random.Generator) -> Tensor:
    """(tasks,) from the gradients' inner products (tasks, tasks)."""
    norms = gram.diagonal().sqrt()
    return norms.mean() / norms.clamp_min(1e-12)
