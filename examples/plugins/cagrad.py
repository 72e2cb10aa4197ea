"""CAGrad as an update of your own: one step for all tasks, in a direction that no task is far behind in.

    multitask train --tasks examples/tasks.toml --plugin examples/plugins/cagrad.py --set train.update=cagrad

Source: Liu et al. 2021, Conflict-Averse Gradient Descent for Multi-task Learning (arXiv 2110.14048), equation 4 and
algorithm 1. With g_0 the mean gradient, it looks for weights w on the simplex that minimize g_w . g_0 + c |g_0| |g_w|,
and steps along g_0 + c |g_0| / |g_w| g_w. All of it follows from the inner products of the tasks' gradients.
"""

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from multitask import UPDATES

C = 0.4  # how far the step may turn from the mean gradient, in [0, 1)


@UPDATES.register("cagrad")
def cagrad(gram: Tensor, rng: np.random.Generator) -> Tensor:
    """Compute the weight of each task's gradient in the step.

    :param gram: (tasks, tasks), inner products of the tasks' gradients.
    :param rng: not used, since nothing is drawn.
    :return: (tasks,); times the number of tasks, so that c = 0 is the summed gradient.
    """
    inner = (gram / gram.trace().clamp_min(1e-300)).numpy()  # the weights depend on ratios alone
    tasks = len(inner)
    mean = np.full(tasks, 1 / tasks)
    radius = C * np.sqrt(mean @ inner @ mean)  # c |g_0|

    def objective(w: np.ndarray) -> float:
        return float(w @ inner @ mean + radius * np.sqrt(w @ inner @ w + 1e-12))

    simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
    w = minimize(objective, mean, bounds=[(0, 1)] * tasks, constraints=simplex).x
    turn = radius / np.sqrt(w @ inner @ w + 1e-12)
    return torch.from_numpy(tasks * (mean + turn * w) / (1 + C**2))
