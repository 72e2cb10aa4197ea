"""The combined update: one step on the summed losses."""

from multitask.updates.base import Update
from multitask.updates.gradients import TaskGradients

__all__ = ["CombinedUpdate"]


class CombinedUpdate(Update):
    """One step on the gradient of the summed losses.

    The tasks' backward passes run one after the other and add up in ``.grad``: the gradient of a sum is the sum of
    the gradients, and only one task's activations are held at a time. Every task's record has the sum's norm.
    """

    def gradients(self, tasks: TaskGradients) -> None:
        """Make the backward passes of all tasks."""
        for name in tasks:
            tasks.backward(name)
