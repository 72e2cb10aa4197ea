"""Fast adaptive multitask optimization (FAMO): Liu et al. 2023, arXiv 2306.03792."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from multitask.errors import RunError
from multitask.updates.base import Objective

__all__ = ["Famo"]

TINY = 1e-8  # added to each loss, so that its logarithm is finite


class Famo(Objective):
    """One step on the weighted sum of the losses' logarithms; the weights' logits follow how fast each loss falls.

    Source: Liu et al. 2023 (arXiv 2306.03792), algorithm 1, without the decay gamma of the logits. Each round also
    computes the losses of its batches with the new weights.

    :raises RunError: for a loss below 0, as one of a user's own may be: cross-entropies and squared errors are not.
    """

    lr = 0.025  # of the logits, as in the authors' code

    def __init__(self, tasks: Sequence[str], rng: np.random.Generator) -> None:
        super().__init__(tasks, rng)
        self.logits = nn.Parameter(torch.zeros(len(tasks)))

    def objective(self, losses: dict[str, Tensor]) -> Tensor:
        """Weigh the logarithms of the losses (lines 3 and 4), with weights that are no part of this gradient."""
        _refuse_negative({name: loss.item() for name, loss in losses.items()})
        here = [self.tasks.index(name) for name in losses]
        weights, values = self.logits.detach()[here].softmax(0), torch.stack(list(losses.values())) + TINY
        return (weights * values.log()).sum() / (weights / values.detach()).sum()

    def after_step(self, losses: dict[str, float], again: Callable[[], dict[str, float]]) -> None:
        """Give the logits the gradient of how much each loss has fallen (line 5)."""
        here = [self.tasks.index(name) for name in losses]
        after = again()
        _refuse_negative(after)
        fallen = [math.log(losses[name] + TINY) - math.log(new + TINY) for name, new in after.items()]
        self.logits[here].softmax(0).backward(torch.tensor(fallen))


def _refuse_negative(losses: Mapping[str, float]) -> None:
    for name, loss in losses.items():
        if loss < 0:
            raise RunError(f"the loss of task {name} must be at least 0 for train.update 'famo', got {loss:g}")
