"""The heads: from pooled vectors to a task's outputs, by the names that ``[tasks.NAME] head`` takes.

A head is a module built from the task and the width of a pooled vector. It is called with the vectors of a row's text,
and with separate input with those of both texts.
"""

import torch
from torch import Tensor, nn

from multitask.errors import ConfigError
from multitask.model.poolings import caller
from multitask.settings.choices import HEADS
from multitask.settings.task import Task

__all__ = ["CosineHead", "LinearHead", "build_head"]


class LinearHead(nn.Module):
    """An affine map of the vector, or of the two vectors of separate input, concatenated."""

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        vectors = 2 if task.two_encodings else 1
        self.linear = nn.Linear(width * vectors, task.num_outputs)

    def forward(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        """Return outputs (batch, num_outputs) from one or two (batch, width)."""
        joined = first if second is None else torch.cat((first, second), dim=1)
        outputs: Tensor = caller()(self.linear, joined)
        return outputs


class CosineHead(nn.Module):
    """The two vectors' cosine on the scale of the labels: ``low + (high - low) / 2 * (1 + cos)``; it has no weights."""

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        assert task.labels is not None  # Task refuses a cosine head without bounds
        self.low, self.high = (float(bound) for bound in task.labels)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the predictions (batch, 1) from two (batch, width)."""
        cosine = torch.cosine_similarity(first.float(), second.float(), dim=1)
        return (self.low + (self.high - self.low) / 2 * (1 + cosine))[:, None]


def build_head(task: Task, width: int) -> nn.Module:
    """Build a task's head; ConfigError for an entry that builds no module."""
    entry = HEADS[task.head]
    head = entry(task, width) if not isinstance(entry, type) or issubclass(entry, nn.Module) else None
    if not isinstance(head, nn.Module):
        raise ConfigError(f"tasks.{task.name}.head {task.head!r} must be an nn.Module class, got {entry!r}")
    return head
