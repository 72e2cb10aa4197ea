"""Dynamic weight averaging as an update of your own: a loss that falls slowly counts more.

    multitask train --tasks examples/tasks.toml --plugin examples/plugins/dwa.py --set train.update=dwa

Source: Liu, Johns and Davison 2019, End-to-End Multi-Task Learning with Attention (arXiv 1803.10704), equation 7: the
weights of an epoch are tasks * softmax(r / T), r being the mean loss of the last epoch over that of the one before it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from multitask import UPDATES, Objective

T = 2.0  # the temperature: the higher, the more equal the weights


@UPDATES.register("dwa")
class DynamicWeightAverage(Objective):
    """One step on the weighted sum of the losses."""

    sums: Tensor
    counts: Tensor
    last: Tensor

    def __init__(self, tasks: Sequence[str], rng: np.random.Generator) -> None:
        super().__init__(tasks, rng)
        self.register_buffer("sums", torch.zeros(3, len(tasks)))  # of this epoch's losses, and of the two before
        self.register_buffer("counts", torch.zeros(3, len(tasks)))
        self.register_buffer("last", torch.tensor(0))  # the epoch that the first row is of

    def objective(self, losses: dict[str, Tensor]) -> Tensor:
        """Weigh the losses of the round's tasks."""
        if self.epoch != self.last:
            for kept in (self.sums, self.counts):
                kept.copy_(kept.roll(1, 0))
                kept[0] = 0
            self.last.fill_(self.epoch)
        here = [self.tasks.index(name) for name in losses]
        values = torch.stack(list(losses.values()))
        self.sums[0, here] += values.detach().float()
        self.counts[0, here] += 1
        weights = torch.ones(len(self.tasks))
        if self.counts.all():  # two epochs are over
            _, before, earlier = self.sums / self.counts
            weights = len(self.tasks) * (before / earlier / T).softmax(0)
        return (weights[here] * values).sum()
