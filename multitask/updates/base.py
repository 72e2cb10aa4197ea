"""What an update is: a rule that turns the losses of a round's tasks into the gradient that is stepped on.

All that every update needs is done by its caller, stepper.py: optimizers and their rates, precision, batches in parts,
sums over processes, clipping, losses that are not finite, clearing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from multitask.errors import RunError
from multitask.settings.checks import shown

if TYPE_CHECKING:
    from multitask.updates.gradients import TaskGradients

__all__ = ["GramWeighting", "Objective", "Update", "Weighting"]

Losses = dict[str, float]


class Update(nn.Module, ABC):
    """One way of turning a round's losses into parameter updates.

    Parameters and buffers that a subclass gives itself are checkpointed, and resumed to the bit. At the end of a step
    those of its parameters that have a gradient are stepped on, too, by an AdamW of their own.

    epoch: the one that is trained, from 0; its caller sets it before each step.
    own_steps: every task has a step and an optimizer of its own, over its encoder and its decoder; else there is one
    step for all tasks of a round, and one optimizer.
    lr: learning rate of the update's own parameters; it follows the run's schedule.

    :param tasks: the names of the run's tasks.
    :param rng: draws whatever is drawn; a checkpoint holds its state. torch's own generator differs by process.
    """

    own_steps: ClassVar[bool] = False
    lr: ClassVar[float] = 1e-3

    def __init__(self, tasks: Sequence[str], rng: np.random.Generator) -> None:
        super().__init__()
        self.tasks, self.rng, self.epoch = tuple(tasks), rng, 0

    @abstractmethod
    def gradients(self, tasks: "TaskGradients") -> None:
        """Leave in ``.grad`` what the optimizer is to step on.

        :param tasks: the tasks of this step; what can be asked of them.
        """

    def after_step(self, losses: Losses, again: Callable[[], Losses]) -> None:  # noqa: B027 - most have nothing to do
        """Do what is left to do when the step was taken, such as giving the update's own parameters a gradient.

        :param losses: of the step, by task.
        :param again: computes the losses of the same batches with the new weights, without gradients.
        """


class Weighting(Update):
    """One step on a weighted sum of the tasks' gradients of the encoder; decoders keep their own gradients."""

    @abstractmethod
    def weigh(self, gram: Tensor, losses: Losses) -> Tensor:
        """Compute the weight of each task's gradient, (tasks,).

        :param gram: inner products of the gradients, float64 (tasks, tasks), of the round's tasks in its order.
        :param losses: by task, in the same order.
        """

    def gradients(self, tasks: "TaskGradients") -> None:
        """Weigh the gradients that the tasks have each by itself."""
        rows = tasks.collect()  # (tasks, parameters)
        tasks.put(rows, self.weigh((rows @ rows.T).double().cpu(), dict(tasks.losses)))


class GramWeighting(Weighting):
    """The weighting that a function of the Gram matrix says.

    :param weigh: of the Gram matrix (tasks, tasks) and a generator: weights (tasks,).
    """

    def __init__(
        self, weigh: Callable[[Tensor, np.random.Generator], Any], tasks: Sequence[str], rng: np.random.Generator
    ) -> None:
        super().__init__(tasks, rng)
        self._weigh = weigh

    def weigh(self, gram: Tensor, losses: Losses) -> Tensor:
        """Ask the function."""
        weights: Tensor = self._weigh(gram, self.rng)
        return weights


class Objective(Update):
    """One step on the gradient of a function of the losses, of decoders and of the update's own parameters, too."""

    @abstractmethod
    def objective(self, losses: dict[str, Tensor]) -> Tensor:
        """Compute what is to be minimized, (), from the losses of the round's tasks, () each."""

    def gradients(self, tasks: "TaskGradients") -> None:
        """Weigh each task's gradient by the objective's derivative with respect to its loss (the chain rule).

        So the objective sees the loss of the whole batch, over all of its parts and all processes.

        :raises RunError: for an objective that is no tensor (), or does not follow from the losses.
        """
        rows = tasks.collect()  # (tasks, parameters)
        losses = {
            name: torch.tensor(loss, dtype=torch.float64, requires_grad=True) for name, loss in tasks.losses.items()
        }
        with torch.enable_grad():
            goal = self.objective(losses)
            if not isinstance(goal, Tensor) or goal.shape != () or not goal.requires_grad:
                name = type(self).__qualname__
                raise RunError(
                    f"objective of {name} must return a tensor () that follows from losses, got {shown(goal)}"
                )
            goal.backward()
        unused = torch.zeros((), dtype=torch.float64)
        weights = [unused if loss.grad is None else loss.grad for loss in losses.values()]
        tasks.put(rows, torch.stack(weights), decoders=True)
