"""Separate updates: one backward pass and one step for each task in turn."""

from multitask.updates.base import Update
from multitask.updates.gradients import TaskGradients

__all__ = ["SeparateUpdate"]


class SeparateUpdate(Update):
    """A backward pass and a step of the task's own optimizer for each task in turn: the report's Algorithm 1.

    Each optimizer covers the task's encoder and its decoder, no other decoder; gradients are cleared between tasks.
    """

    own_steps = True

    def gradients(self, tasks: TaskGradients) -> None:
        """Make the backward pass of the one task of this step."""
        for name in tasks:
            tasks.backward(name)
