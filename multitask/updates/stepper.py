"""Takes the steps: what every update needs, done once for all of them.

The report's listing builds its optimizers inside the loop, which would forget the moments at each step; here they are
built once a run.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from minbert.fast.embedding import SpareGradients
from minbert.optim import AdamW
from multitask.data.batches import Batch
from multitask.distributed import size, totals_over_ranks
from multitask.errors import ConfigError, NonFiniteError, RunError
from multitask.model.losses import task_loss
from multitask.model.model import MultitaskModel
from multitask.precision import autocast
from multitask.settings.checks import listed
from multitask.settings.choices import UPDATES
from multitask.settings.config import TrainConfig
from multitask.updates.base import GramWeighting, Update
from multitask.updates.building import build_optimizers, optimizers_of
from multitask.updates.conflicts import Conflicts, Cosines
from multitask.updates.gradients import TaskGradients, not_finite, sum_gradients, trainable
from multitask.updates.own_state import OwnState

__all__ = ["OWN", "StepRecord", "Stepper"]

# The optimizer of an update's own parameters; no task can be called so.
OWN = "the update's own"


@dataclass(frozen=True)
class StepRecord:
    """What one task did in a round: its loss, the encoder's learning rate, the norm of its gradient before clipping.

    Loss and norm are None where one of them was not finite and the step was skipped. Where tasks are stepped together
    and their gradients are not known one by one, the norm is that of their sum.
    """

    rows: int
    loss: float | None
    lr: float
    grad_norm: float | None


class Stepper:
    """The update that the settings name, its optimizers, and all that is done around it.

    cosines: between the tasks' gradients in the last round, with ``train.log_conflict``.

    :param order_rng: what the update draws from.
    :param dtype: of the forward pass's matrix products; gradients and steps have the parameters' own type.
    :raises ConfigError: for tasks that the update can't train together, or that have nothing to train.
    """

    def __init__(
        self,
        model: MultitaskModel,
        settings: TrainConfig,
        order_rng: np.random.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model, self.settings, self.order_rng, self.dtype = model, settings, order_rng, dtype
        self.update = _build_update(settings.update, tuple(model.tasks), order_rng)
        self.optimizers, self._factor = build_optimizers(model, settings, self.update.own_steps), 1.0
        own = trainable(self.update)
        if own:
            self.optimizers[OWN] = AdamW(own, lr=self.update.lr, eps=settings.eps, weight_decay=0.0)
        self._own_state, self._checked = OwnState(self.update), False
        self._spare_gradients = SpareGradients()
        self._conflicts = Conflicts(model) if settings.log_conflict else None
        self.cosines: Cosines = {}
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]

    def check_state(self) -> None:
        """Raise RunError if the update keeps what no checkpoint would hold."""
        self._own_state.check(self.settings.update)

    def round(self, batches: Mapping[str, Batch], factor: float, epoch: int = 0) -> dict[str, StepRecord]:
        """Update on one batch of each task.

        :param batches: by task, in the order in which they are trained on.
        :param factor: multiplies every learning rate.
        :param epoch: the one that is trained, from 0.
        :return: by task, what it did; without those that the update left out.
        :raises NonFiniteError: for a loss or norm that is not finite, unless ``train.on_nonfinite`` skips the step.
        """
        self.update.epoch, self._factor = epoch, factor
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        steps = [{name: batch} for name, batch in batches.items()] if self.update.own_steps else [batches]
        records: dict[str, StepRecord] = {}
        try:
            for step in steps:
                losses, norms = self._step_or_skip(step)
                for name in filter(losses.__contains__, step):
                    rate = self.model.tasks[name].lr * factor
                    records[name] = StepRecord(step[name].rows, losses[name], rate, norms[name])
            self.cosines = {} if self._conflicts is None else self._conflicts.cosines()
        finally:
            self._clear()
            if self._conflicts is not None:
                self._conflicts.clear()
        if not self._checked:  # rather than at the first save, which may be an hour away
            self._checked = True
            self.check_state()
        return records

    def _step_or_skip(self, batches: Mapping[str, Batch]) -> tuple[Mapping[str, float | None], ...]:
        """Take one step; losses and norms of the tasks that took part, None for a step that is skipped."""
        self._clear()
        try:
            tasks = self._step(batches)
        except NonFiniteError:
            if self.settings.on_nonfinite != "skip":
                raise
            return dict.fromkeys(batches), dict.fromkeys(batches)
        return tasks.losses, tasks.norms

    def _step(self, batches: Mapping[str, Batch]) -> TaskGradients:
        """Take one step on the batches of one task, or of all."""
        tasks = TaskGradients(self.model, batches, self._backward, self._clear_encoders)
        self.update.gradients(tasks)
        if not tasks.losses:
            if self.update.own_steps:  # the task is left out
                return tasks
            raise RunError(f"the update {self.settings.update!r} must make the backward pass of a task, made none")
        optimizers = list(
            optimizers_of(self.optimizers, self.model, list(batches), self.update.own_steps, self._factor)
        )
        parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        if not tasks.summed:
            sum_gradients(parameters)
        norm = self._clip(parameters, list(batches))
        tasks.norms = {name: tasks.norms.get(name, norm) for name in tasks.losses}
        self._refuse_own_gradients(batches, "no step was taken")
        for optimizer in optimizers:
            optimizer.step()
        self.update.after_step(dict(tasks.losses), lambda: self._losses(batches))
        self._step_own(batches)
        return tasks

    def _step_own(self, batches: Mapping[str, Batch]) -> None:
        """Step on the update's own parameters; of gradients that are not finite, skip this step alone if any are."""
        if OWN not in self.optimizers:
            return
        if not self._checked and all(parameter.grad is None for parameter in self.update.parameters()):
            raise RunError(
                f"train.update {self.settings.update!r} must give its parameters a gradient, in objective or"
                " after_step, got none; what is not learned is a buffer (register_buffer)"
            )
        try:
            self._refuse_own_gradients(batches, "its step was not taken")
        except NonFiniteError:
            if self.settings.on_nonfinite != "skip":
                raise
            return
        self.optimizers[OWN].step()

    def _refuse_own_gradients(self, tasks: Iterable[str], so: str) -> None:
        """Raise NonFiniteError if the update's own parameters have gradients that are not finite."""
        for name, parameter in self.update.named_parameters():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                raise NonFiniteError(list(tasks), f"the gradient of the update's own {name} is not finite, {so}")

    def _backward(self, name: str, batch: Batch) -> float:
        """Add the gradient of this process's share of a task's loss to ``.grad``.

        :return: the loss, summed over the batch's parts and the shares of all processes.
        :raises NonFiniteError: if it is not finite.
        """
        total = 0.0
        with nullcontext() if self._conflicts is None else self._conflicts.noted(name):
            for part in batch.parts(self.settings.accumulate):
                loss = self._loss(name, part)
                total += loss.item()
                loss.backward()
        (value,) = totals_over_ranks([total])
        task = self.model.tasks[name]
        if not math.isfinite(value):
            raise NonFiniteError(
                [name],
                f"the loss is {value}; lower its lr ({task.lr:g}) or set train.clip, if its loss_weight"
                f" ({task.loss_weight:g}) and train.eps ({self.settings.eps:g}) are what you want",
            )
        return value

    def _loss(self, name: str, part: Batch) -> torch.Tensor:
        with self._spare_gradients.lent(), autocast(self.dtype, part.labels.device):
            outputs = self.model(name, part.tokens, part.windows)
        loss = task_loss(self.model.tasks[name], outputs, part.labels, part.whole, part.soft)
        return loss if part.counts else loss * 0

    @torch.no_grad()
    def _losses(self, batches: Mapping[str, Batch]) -> dict[str, float]:
        """Compute the losses of batches with the weights as they are now."""
        parts = {name: batch.parts(self.settings.accumulate) for name, batch in batches.items()}
        own = [sum(self._loss(name, part).item() for part in each) for name, each in parts.items()]
        return dict(zip(batches, totals_over_ranks(own), strict=True))

    def _clip(self, parameters: Sequence[nn.Parameter], tasks: Sequence[str]) -> float:
        """Scale the gradient down to the norm ``train.clip``, if that is set and smaller.

        :return: the norm before.
        :raises NonFiniteError: before any step is taken, if the norm is not finite.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # A dot product with itself is one pass of a product library, twice as fast as torch's norm.
        norm = math.sqrt(sum(torch.dot(part.flatten(), part.flatten()).item() for part in gradients))
        if not math.isfinite(norm):
            raise NonFiniteError(tasks, not_finite(norm))
        if self.settings.clip is not None and norm > self.settings.clip:
            for gradient in gradients:
                gradient.mul_(self.settings.clip / norm)
        return norm

    def _clear(self) -> None:
        """Set all gradients to None, not zero: a zero one would move a parameter, by momentum and by decay."""
        self._clear_encoders()
        self.model.decoders.zero_grad(set_to_none=True)
        self.update.zero_grad(set_to_none=True)

    def _clear_encoders(self) -> None:
        """Set the encoders' gradients to None; those of word embeddings keep their memory for the next pass."""
        if size() == 1:  # with other processes they also have rows that only those have seen
            for task in self.model.tasks:
                words = self.model.encoder_of(task).embeddings.word_embeddings
                if type(words) is nn.Embedding:
                    self._spare_gradients.drop(words.weight)
        self.model.encoders.zero_grad(set_to_none=True)


def _build_update(name: str, tasks: tuple[str, ...], rng: np.random.Generator) -> Update:
    """Build the update of that name: a class of updates, or a function that weighs gradients by their Gram matrix."""
    entry = UPDATES[name]
    if not isinstance(entry, type):
        return GramWeighting(entry, tasks, rng)
    if not issubclass(entry, Update):
        raise ConfigError(f"train.update {name!r} must be derived from multitask.Update, got {entry.__name__}")
    if entry.__abstractmethods__:
        missing = listed(sorted(entry.__abstractmethods__))
        raise ConfigError(f"train.update {name!r} must have {missing}, which {entry.__name__} lacks")
    return entry(tasks, rng)
