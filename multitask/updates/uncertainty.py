"""Uncertainty weighting: Kendall, Gal and Cipolla 2018, arXiv 1705.07115."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from multitask.updates.base import Objective

__all__ = ["Uncertainty"]


class Uncertainty(Objective):
    """One step on the losses, each divided by a variance that is learned.

    Source: Kendall, Gal and Cipolla 2018 (arXiv 1705.07115), equation 7, with s = log sigma^2, which is what their
    section 3.2 trains: the sum of exp(-s) / 2 * loss + s / 2. Their equation 10 has no half before the loss of a
    classification: the same objective up to a constant, if the s here starts at -log 2 instead of 0.
    """

    lr = 1e-3  # of the log variances

    def __init__(self, tasks: Sequence[str], rng: np.random.Generator) -> None:
        super().__init__(tasks, rng)
        self.log_variances = nn.ParameterList(torch.zeros(()) for _ in tasks)

    def objective(self, losses: dict[str, Tensor]) -> Tensor:
        """Sum the weighted losses of the round's tasks."""
        pairs = [(self.log_variances[self.tasks.index(name)], loss) for name, loss in losses.items()]
        return torch.stack([(-s).exp() * loss + s for s, loss in pairs]).sum() / 2
