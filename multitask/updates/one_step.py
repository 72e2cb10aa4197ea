"""What the updates with one optimizer and one step a round share: combined and PCGrad."""

from abc import abstractmethod
from collections.abc import Mapping

from minbert.optim import AdamW, parameter_groups
from multitask.data.batches import Batch
from multitask.errors import ConfigError, NonFiniteError
from multitask.updates.base import StepRecord, Update, trainable

__all__ = ["OneStepUpdate"]


class OneStepUpdate(Update):
    """One step for all tasks, so the tasks of an encoder must agree in its learning rate and decay."""

    def _build_optimizers(self) -> dict[str, AdamW]:
        rates = {name: (task.lr, task.weight_decay) for name, task in self.model.tasks.items()}
        groups = []
        for encoder_name, encoder in self.model.encoders.items():
            users = [name for name, task in self.model.tasks.items() if task.encoder == encoder_name]
            if len({rates[name] for name in users}) > 1:
                shown = ", ".join(f"{name} {rates[name][0]:g} / {rates[name][1]:g}" for name in users)
                raise ConfigError(
                    f"lr / weight_decay must be equal for all tasks of one encoder, since train.update ="
                    f" {self.settings.update!r} makes one step for all, got {shown}; decoder_lr may differ"
                )
            if users:
                groups += parameter_groups(encoder, *rates[users[0]])
        for name in self.model.tasks:
            if not trainable(self.model.encoder_of(name)) and not trainable(self.model.decoders[name]):
                self._adamw([], f"task {name}")  # which says why
            groups += self._decoder_groups(name)
        return {"all": self._adamw(groups, "the run")}

    def round(self, batches: Mapping[str, Batch], factor: float) -> dict[str, StepRecord]:
        """Collect the gradients of all tasks and make one step; see Update.round."""
        self._scale_rates(factor)
        self._clear()
        try:
            return self._one_step(batches, factor)
        except NonFiniteError as error:
            self._stop_unless_skipped(error)
            return {name: self._record(name, batch, factor, None, None) for name, batch in batches.items()}
        finally:
            self._clear()

    @abstractmethod
    def _one_step(self, batches: Mapping[str, Batch], factor: float) -> dict[str, StepRecord]:
        """Make all backward passes and the step."""

    def _step(self) -> float:
        """Clip and step; the gradient's norm before clipping."""
        norm = self._clip(trainable(self.model), list(self.model.tasks))
        self.optimizers["all"].step()
        return norm
