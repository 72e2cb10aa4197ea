"""The optimizers by the names that ``[train] optimizer`` takes, each a function of parameter groups and settings."""

from typing import Any

import torch

from minbert.optim import AdamW
from multitask.settings.tables import TrainConfig

__all__ = ["adamw", "sgd", "torch_adamw"]

Groups = list[dict[str, Any]]


def adamw(groups: Groups, settings: TrainConfig) -> torch.optim.Optimizer:
    """Build minbert's own AdamW."""
    return AdamW(groups, eps=settings.eps)


def torch_adamw(groups: Groups, settings: TrainConfig) -> torch.optim.Optimizer:
    """Build torch's AdamW, to compare with."""
    return torch.optim.AdamW(groups, eps=settings.eps)


def sgd(groups: Groups, settings: TrainConfig) -> torch.optim.Optimizer:
    """Build torch's stochastic gradient descent, with momentum 0.9."""
    return torch.optim.SGD(groups, momentum=0.9)
