"""How far the tasks' gradients of a shared encoder agree: their cosines, round by round."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations

import torch
from torch import Tensor

from multitask.distributed import sum_over_ranks
from multitask.errors import ConfigError
from multitask.model.model import MultitaskModel
from multitask.updates.gradients import flat_gradient, trainable

__all__ = ["Conflicts", "Cosines"]

# By task and other task of the same encoder, both ways; None where a gradient is zero or not finite.
Cosines = dict[str, dict[str, float | None]]


class Conflicts:
    """Notes the tasks' gradients of their encoder one by one during a round, and compares them at its end.

    A task's gradient is what its backward pass adds to ``.grad``; where passes add up, as in the combined update, the
    difference of before and after, so with the rounding of their sum. Under separate updates each is taken at the
    weights that the task's own step begins from, which the steps of the round's earlier tasks have moved; else all are
    taken at the same weights. Nothing that is trained on is changed; one copy of the encoder's gradient per task is
    held until the round is over.

    :raises ConfigError: if no two tasks train one encoder.
    """

    def __init__(self, model: MultitaskModel) -> None:
        self._parameters = {name: trainable(model.encoder_of(name)) for name in model.tasks}
        self._pairs = [
            (one, two)
            for one, two in combinations(model.tasks, 2)
            if model.tasks[one].encoder == model.tasks[two].encoder and self._parameters[one]
        ]
        if not self._pairs:
            raise ConfigError("train.log_conflict must be false where no two tasks train one encoder, got true")
        self._rows: dict[str, Tensor] = {}

    @contextmanager
    def noted(self, name: str) -> Iterator[None]:
        """Note the gradient that a task's backward pass adds within."""
        parameters = self._parameters[name]
        if not parameters:
            yield
            return
        begun = any(parameter.grad is not None for parameter in parameters)
        before = flat_gradient(parameters) if begun else None
        yield
        after = flat_gradient(parameters)
        self._rows[name] = after if before is None else after - before

    def clear(self) -> None:
        """Forget the gradients of a round."""
        self._rows = {}

    def cosines(self) -> Cosines:
        """Compare the gradients of a round's tasks, each summed over all processes."""
        sum_over_ranks(list(self._rows.values()))
        norms = {name: row.norm().item() for name, row in self._rows.items()}
        found: Cosines = {name: {} for name in self._rows}
        for one, two in self._pairs:
            if one in self._rows and two in self._rows:
                product, lengths = torch.dot(self._rows[one], self._rows[two]).item(), norms[one] * norms[two]
                # Of lengths that are not finite the comparison is false, too.
                value = max(-1.0, min(1.0, product / lengths)) if 0 < lengths < float("inf") else None
                found[one][two] = found[two][one] = value
        return found
