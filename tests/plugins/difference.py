"""A head for two encodings: an affine map of both and of how far they differ (Reimers and Gurevych 2019, section 3)."""

import torch
from torch import Tensor, nn

from multitask import HEADS, ConfigError, Task


@HEADS.register("difference")
class Difference(nn.Module):
    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        if task.encodings != 2:
            raise ConfigError(f"tasks.{task.name}.head = 'difference' must have two text columns and separate input")
        self.output = nn.Linear(3 * width, task.num_outputs)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.output(torch.cat((first, second, (first - second).abs()), dim=1))  # (batch, num_outputs)
