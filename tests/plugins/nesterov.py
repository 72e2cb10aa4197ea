"""An optimizer: gradient descent that looks ahead, by torch."""

from typing import Any

import torch

from multitask import OPTIMIZERS, TrainConfig


@OPTIMIZERS.register("nesterov")
def nesterov(groups: list[dict[str, Any]], settings: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, momentum=0.8, nesterov=True)
