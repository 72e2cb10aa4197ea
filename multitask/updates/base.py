"""What every update has: optimizers built once a run, a backward pass for one task, clipping, clearing.

The report's listing builds its optimizers inside the loop, which would forget the moments at each step.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from minbert.fast.embedding import SpareGradients
from minbert.optim import AdamW, parameter_groups
from multitask.data.batches import Batch
from multitask.distributed import size, sum_over_ranks, totals_over_ranks
from multitask.errors import ConfigError, NonFiniteError
from multitask.model.losses import task_loss
from multitask.model.model import MultitaskModel
from multitask.precision import autocast
from multitask.settings.config import TrainConfig

__all__ = ["StepRecord", "Update", "sum_gradients", "trainable"]


@dataclass(frozen=True)
class StepRecord:
    """What one task did in a round: its loss, the encoder's learning rate, the norm of its gradient before clipping.

    Loss and norm are None where one of them was not finite and the step was skipped.
    """

    rows: int
    loss: float | None
    lr: float
    grad_norm: float | None


class Update(ABC):
    """One way of turning a round's losses into parameter updates.

    :param order_rng: draws PCGrad's order of tasks; the other updates do not use it.
    :param dtype: of the forward pass's matrix products; gradients and steps have the parameters' own type.
    """

    def __init__(
        self,
        model: MultitaskModel,
        settings: TrainConfig,
        order_rng: np.random.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model, self.settings, self.order_rng, self.dtype = model, settings, order_rng, dtype
        self.optimizers = self._build_optimizers()
        self._spare_gradients = SpareGradients()
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]

    @abstractmethod
    def _build_optimizers(self) -> dict[str, AdamW]:
        """Build the optimizers, by name and in a fixed order."""

    @abstractmethod
    def round(self, batches: Mapping[str, Batch], factor: float) -> dict[str, StepRecord]:
        """Update on one batch of each task.

        :param batches: by task, in the order in which they are trained on.
        :param factor: multiplies every learning rate.
        :return: by task, what it did.
        :raises NonFiniteError: for a loss or norm that is not finite, unless ``train.on_nonfinite`` skips the step.
        """

    def _decoder_groups(self, name: str) -> list[dict[str, Any]]:
        """Group a decoder's parameters, which may have a learning rate of their own."""
        task = self.model.tasks[name]
        rate = task.lr if task.decoder_lr is None else task.decoder_lr
        return parameter_groups(self.model.decoders[name], rate, task.weight_decay)

    def _adamw(self, groups: Sequence[dict[str, Any]], whose: str) -> AdamW:
        """Build one optimizer; ConfigError without any group."""
        if not groups:
            raise ConfigError(
                f"{whose} has nothing to train: encoder.freeze is true, and a cosine head has no weights of its own"
            )
        return AdamW(groups, eps=self.settings.eps)

    def _scale_rates(self, factor: float) -> None:
        """Set every learning rate to ``factor`` times the one it was built with."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def _backward(self, name: str, batch: Batch) -> float:
        """Add the gradient of this process's share of a task's loss to ``.grad``.

        :return: the loss, summed over the shares of all processes.
        :raises NonFiniteError: if it is not finite.
        """
        task = self.model.tasks[name]
        with self._spare_gradients.lent(), autocast(self.dtype, batch.labels.device):
            outputs = self.model(name, batch.tokens)
        loss = task_loss(task, outputs, batch.labels, batch.whole)
        if not batch.counts:
            loss = loss * 0
        (value,) = totals_over_ranks([loss.item()])
        if not math.isfinite(value):
            raise NonFiniteError(
                [name],
                f"the loss is {value}; lower its lr ({task.lr:g}) or set train.clip, if its loss_weight"
                f" ({task.loss_weight:g}) and train.eps ({self.settings.eps:g}) are what you want",
            )
        loss.backward()
        return value

    def _clip(self, parameters: Sequence[nn.Parameter], tasks: Sequence[str]) -> float:
        """Scale the gradient down to the norm ``train.clip``, if that is set and smaller.

        :return: the norm before.
        :raises NonFiniteError: before any step is taken, if the norm is not finite.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # A dot product with itself is one pass of a product library, twice as fast as torch's norm.
        norm = math.sqrt(sum(torch.dot(part.flatten(), part.flatten()).item() for part in gradients))
        if not math.isfinite(norm):
            raise NonFiniteError(tasks, f"the gradient's norm is {norm}, no step was taken; lower lr or loss_weight")
        if self.settings.clip is not None and norm > self.settings.clip:
            for gradient in gradients:
                gradient.mul_(self.settings.clip / norm)
        return norm

    def _record(self, name: str, batch: Batch, factor: float, loss: float | None, norm: float | None) -> StepRecord:
        """Record what a task did, at its encoder's learning rate."""
        return StepRecord(batch.rows, loss, self.model.tasks[name].lr * factor, norm)

    def _stop_unless_skipped(self, error: NonFiniteError) -> None:
        """Raise ``error``, unless the settings say to skip such a step."""
        if self.settings.on_nonfinite != "skip":
            raise error

    def _clear(self) -> None:
        """Set all gradients to None, not zero: a zero one would move a parameter, by momentum and by decay."""
        self._clear_encoders()
        self.model.decoders.zero_grad(set_to_none=True)

    def _clear_encoders(self) -> None:
        """Set the encoders' gradients to None; those of word embeddings keep their memory for the next pass."""
        if size() == 1:  # with other processes they also have rows that only those have seen
            for task in self.model.tasks:
                words = self.model.encoder_of(task).embeddings.word_embeddings
                if type(words) is nn.Embedding:
                    self._spare_gradients.drop(words.weight)
        self.model.encoders.zero_grad(set_to_none=True)


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of ``module`` that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace the gradients of this process's share by those of the whole batch."""
    if size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = parameter.grad.contiguous()
    sum_over_ranks([parameter.grad for parameter in parameters if parameter.grad is not None])
