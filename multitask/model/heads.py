"""The heads: from pooled vectors to a task's outputs, by the names that ``[tasks.NAME] head`` takes.

A head is a module built from the task and the width of a pooled vector. It is called with the vectors of a row's text;
of pairs with separate input with those of both texts, and with both inputs with those of the pair, then of both texts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.layers import Dropout
from multitask.errors import ConfigError
from multitask.model.poolings import caller
from multitask.settings.choices import HEADS
from multitask.settings.task import Task

__all__ = ["CosineHead", "LinearHead", "build_head"]


class LinearHead(nn.Module):
    """An affine map of a row's features.

    These are the vector; of separate input both vectors; and of both inputs, with the three unit vectors p of the pair
    and u and v of its texts, sqrt(width) * p, sqrt(width) * |u - v|, width * u * v, all of size one, and the cosine.

    Source of what is made of u and v: Reimers and Gurevych 2019 (Sentence-BERT, arXiv 1908.10084), section 3, and
    Conneau et al. 2017 (arXiv 1705.02364), section 3.2.
    """

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        self.compares = task.encodings == 3
        self.dropout = Dropout(task.dropout if self.compares else 0.0)
        features = 3 * width + 1 if self.compares else width * task.encodings
        self.linear = nn.Linear(features, task.num_outputs)

    def features(self, *vectors: Tensor) -> Tensor:
        """Return what the affine map sees, (batch, features), from one to three (batch, width)."""
        if not self.compares:
            return vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=1)
        p, u, v = (F.normalize(_widened(vector), dim=1) for vector in vectors)
        width = p.shape[1]
        compared = (width**0.5 * p, width**0.5 * (u - v).abs(), width * u * v)
        # The cosine stands for all of u * v: it is not dropped.
        return torch.cat([*(caller()(self.dropout, part) for part in compared), (u * v).sum(1, keepdim=True)], dim=1)

    def forward(self, *vectors: Tensor) -> Tensor:
        """Return outputs (batch, num_outputs) from one to three (batch, width)."""
        outputs: Tensor = caller()(self.linear, self.features(*vectors))
        return outputs


class CosineHead(nn.Module):
    """The two vectors' cosine on the scale of the labels: ``low + (high - low) / 2 * (1 + cos)``; it has no weights."""

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        assert task.labels is not None  # Task refuses a cosine head without bounds
        self.low, self.high = (float(bound) for bound in task.labels)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the predictions (batch, 1) from two (batch, width)."""
        cosine = torch.cosine_similarity(_widened(first), _widened(second), dim=1)
        return (self.low + (self.high - self.low) / 2 * (1 + cosine))[:, None]


def _widened(vector: Tensor) -> Tensor:
    """Return a vector in float32 at least: bfloat16 has too few digits for a cosine."""
    return vector.to(torch.promote_types(vector.dtype, torch.float32))


def build_head(task: Task, width: int) -> nn.Module:
    """Build a task's head; ConfigError for an entry that builds no module."""
    entry = HEADS[task.head]
    head = entry(task, width) if not isinstance(entry, type) or issubclass(entry, nn.Module) else None
    if not isinstance(head, nn.Module):
        raise ConfigError(f"tasks.{task.name}.head {task.head!r} must be an nn.Module class, got {entry!r}")
    return head
