"""From losses to parameter updates: separate steps, one combined step, or gradient surgery.

An update owns its optimizers and takes one round, a batch of each task. Optimizers are built once a run; the report's
listing builds them inside the loop, which would forget the moments at each step.
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
from minbert.optim import AdamW
from multitask.data.batches import Batch
from multitask.distributed import size, sum_over_ranks, totals_over_ranks
from multitask.errors import ConfigError, NonFiniteError
from multitask.model.losses import task_loss
from multitask.model.model import MultitaskModel
from multitask.precision import autocast
from multitask.settings.config import TrainConfig

__all__ = ["OneOptimizer", "StepRecord", "Update", "decoder_group", "group", "sum_gradients", "trainable"]


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
    :param dtype: of the forward pass's matrix products; gradients and steps are the parameters' own type.

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
        """Optimizers by name, in a fixed order."""

    @abstractmethod
    def round(self, batches: Mapping[str, Batch], factor: float) -> dict[str, StepRecord]:
        """Update on one batch of each task, in the mapping's order, at ``factor`` times the learning rates."""

    def _adamw(self, groups: Sequence[dict[str, Any]], whose: str) -> AdamW:
        learning = [group for group in groups if group["params"]]
        if not learning:
            raise ConfigError(
                f"{whose} has nothing to train: encoder.freeze is true, and a cosine head has no weights of its own"
            )
        return AdamW(learning, eps=self.settings.eps)

    def _scale_rates(self, factor: float) -> None:
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def _backward(self, name: str, batch: Batch) -> float:
        """Add the gradient of a task's loss, this process's share of it, to ``.grad``; the loss of all shares.

        NonFiniteError if that is not finite.
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
                f"the loss is {value}; lower its lr ({task.lr:g}) or set train.clip, where its loss_weight"
                f" ({task.loss_weight:g}) and train.eps ({self.settings.eps:g}) are as they should be",
            )
        loss.backward()
        return value

    def _clip(self, parameters: Sequence[nn.Parameter], tasks: Sequence[str]) -> float:
        """The gradient's norm; scales the gradient down to ``train.clip`` if that is set and smaller.

        NonFiniteError, before any step is taken, if the norm is not finite.
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
        return StepRecord(batch.rows, loss, self.model.tasks[name].lr * factor, norm)

    def _stop_unless_skipped(self, error: NonFiniteError) -> None:
        if self.settings.on_nonfinite != "skip":
            raise error

    def _clear(self) -> None:
        if size() == 1:  # with other processes the gradient has their rows, too
            for task in self.model.tasks:
                self._spare_gradients.drop(self.model.encoder_of(task).embeddings.word_embeddings.weight)
        # None, not zero: a zero gradient would still move a parameter, by momentum and by decay.
        self.model.zero_grad(set_to_none=True)


class OneOptimizer(Update):
    """What the updates with one step a round share."""

    def _build_optimizers(self) -> dict[str, AdamW]:
        rates = {name: (task.lr, task.weight_decay) for name, task in self.model.tasks.items()}
        groups = []
        for encoder_name, encoder in self.model.encoders.items():
            users = [name for name, task in self.model.tasks.items() if task.encoder == encoder_name]
            if len({rates[name] for name in users}) > 1:
                shown = ", ".join(f"{name} {rates[name][0]:g} / {rates[name][1]:g}" for name in users)
                raise ConfigError(
                    f"train.update = {self.settings.update!r} makes one step for all tasks: those of one encoder have"
                    f" to agree in lr / weight_decay, not {shown}; decoder_lr may differ"
                )
            learning = trainable(encoder)
            if learning and users:
                groups.append(group(learning, *rates[users[0]]))
        for name in self.model.tasks:
            if not trainable(self.model.encoder_of(name)) and not trainable(self.model.decoders[name]):
                self._adamw([], f"task {name}")  # which says why
        groups += [decoder_group(self.model, name) for name in self.model.tasks]
        return {"all": self._adamw(groups, "the run")}

    def round(self, batches: Mapping[str, Batch], factor: float) -> dict[str, StepRecord]:
        self._scale_rates(factor)
        self._clear()
        try:
            return self._one_step(batches, factor)
        except NonFiniteError as error:
            self._stop_unless_skipped(error)
            # Not left to be used again: surgery may have put NaN into rows of the embeddings that no batch touched.
            self.model.zero_grad(set_to_none=True)
            return {name: self._record(name, batch, factor, None, None) for name, batch in batches.items()}
        finally:
            self._clear()

    @abstractmethod
    def _one_step(self, batches: Mapping[str, Batch], factor: float) -> dict[str, StepRecord]:
        """All backward passes and the step."""

    def _step(self) -> float:
        norm = self._clip(trainable(self.model), list(self.model.tasks))
        self.optimizers["all"].step()
        return norm


def trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Gradients of the whole batch in the place of this process's share."""
    if size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = parameter.grad.contiguous()
    sum_over_ranks([parameter.grad for parameter in parameters if parameter.grad is not None])


def group(parameters: list[nn.Parameter], lr: float, weight_decay: float) -> dict[str, Any]:
    return {"params": parameters, "lr": lr, "weight_decay": weight_decay}


def decoder_group(model: MultitaskModel, name: str) -> dict[str, Any]:
    task = model.tasks[name]
    rate = task.lr if task.decoder_lr is None else task.decoder_lr
    return group(trainable(model.decoders[name]), rate, task.weight_decay)
