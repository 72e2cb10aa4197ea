"""The combined update: one step on the summed losses."""

from collections.abc import Mapping

from multitask.data.batches import Batch
from multitask.updates.base import StepRecord, sum_gradients, trainable
from multitask.updates.one_step import OneStepUpdate

__all__ = ["CombinedUpdate"]


class CombinedUpdate(OneStepUpdate):
    """One step on the gradient of the summed losses.

    The tasks' backward passes run one after the other and add up in ``.grad``: the gradient of a sum is the sum of
    the gradients, and only one task's activations are held at a time. Every task's record has the sum's norm.
    """

    def _one_step(self, batches: Mapping[str, Batch], factor: float) -> dict[str, StepRecord]:
        losses = {name: self._backward(name, batch) for name, batch in batches.items()}
        sum_gradients(trainable(self.model))
        norm = self._step()
        return {name: self._record(name, batch, factor, losses[name], norm) for name, batch in batches.items()}
