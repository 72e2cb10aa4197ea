"""Separate updates: one backward pass and one step for each task in turn."""

from collections.abc import Mapping

from minbert.optim import AdamW, parameter_groups
from multitask.data.batches import Batch
from multitask.errors import NonFiniteError
from multitask.updates.base import StepRecord, Update, sum_gradients

__all__ = ["SeparateUpdate"]


class SeparateUpdate(Update):
    """A backward pass and a step of the task's own optimizer for each task in turn: the report's Algorithm 1.

    Each optimizer covers the task's encoder and its decoder, no other decoder; gradients are cleared between tasks.
    """

    def _build_optimizers(self) -> dict[str, AdamW]:
        optimizers = {}
        for name, task in self.model.tasks.items():
            groups = parameter_groups(self.model.encoder_of(name), task.lr, task.weight_decay)
            optimizers[name] = self._adamw(groups + self._decoder_groups(name), f"task {name}")
        return optimizers

    def round(self, batches: Mapping[str, Batch], factor: float) -> dict[str, StepRecord]:
        """Make a backward pass and a step for each task in turn; see Update.round."""
        self._scale_rates(factor)
        records = {}
        for name, batch in batches.items():
            self._clear()
            optimizer = self.optimizers[name]
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            loss = norm = None
            try:
                loss = self._backward(name, batch)
                sum_gradients(parameters)
                norm = self._clip(parameters, [name])
                optimizer.step()
            except NonFiniteError as error:
                self._stop_unless_skipped(error)
                loss = None
            records[name] = self._record(name, batch, factor, loss, norm)
        self._clear()
        return records
