"""A kind of task: ordered classes, with one output for each step between two of them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from multitask import KINDS, Classification, Task


@KINDS.register("ordinal")
class Ordinal(Classification):
    metrics = ("accuracy", "macro_f1", "mae")

    def num_outputs(self, task: Task) -> int:
        return len(task.classes) - 1

    def row_losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        steps = torch.arange(outputs.shape[1], device=labels.device)
        above = (labels[:, None] > steps).to(outputs.dtype)  # (batch, steps): is the label above the step?
        return F.binary_cross_entropy_with_logits(outputs, above, reduction="none").sum(1)

    def predict(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        reached = F.pad(outputs.sigmoid().cummin(1).values, (1, 0), value=1.0)  # (batch, classes), falling
        probabilities = reached - F.pad(reached[:, 1:], (0, 1))
        return probabilities.argmax(1), probabilities
