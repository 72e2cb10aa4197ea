"""The tasks of one step, and what an update can ask of them: their losses, and their gradients one by one."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from multitask.data.batches import Batch
from multitask.distributed import size, sum_over_ranks
from multitask.errors import NonFiniteError, RunError
from multitask.model.model import MultitaskModel
from multitask.settings.checks import shown

__all__ = ["TaskGradients", "flat_gradient", "not_finite", "sum_gradients", "trainable"]


class TaskGradients:
    """The tasks of one step; iterating gives their names, in the order in which they are trained on.

    losses: by task, over the whole batch; of those whose backward pass has been made.
    norms: of the tasks' own gradients, where they were collected one by one.
    summed: whether ``.grad`` holds the sums over all processes.

    :param backward: of a task's name and batch: adds its gradient to ``.grad``, and returns its loss.
    :param clear_encoders: sets the encoders' gradients to None.
    """

    def __init__(
        self,
        model: MultitaskModel,
        batches: Mapping[str, Batch],
        backward: Callable[[str, Batch], float],
        clear_encoders: Callable[[], None],
    ) -> None:
        self._model, self._batches, self._backward, self._clear_encoders = model, batches, backward, clear_encoders
        self._shared = [p for encoder in model.encoders.values() for p in trainable(encoder)]
        self._used = set[nn.Parameter]()
        self.losses: dict[str, float] = {}
        self.norms: dict[str, float] = {}
        self.summed = False

    def __iter__(self) -> Iterator[str]:
        return iter(self._batches)

    def backward(self, name: str) -> float:
        """Add the gradient of a task's loss to ``.grad``; the loss.

        :raises NonFiniteError: if it is not finite.
        :raises RunError: after ``collect``, which has summed over all processes what is in ``.grad``.
        """
        if self.summed:
            raise RunError("an update must not call backward after collect")
        self.losses[name] = self._backward(name, self._batches[name])
        return self.losses[name]

    def collect(self) -> Tensor:
        """Compute the gradient of each task by itself, summed over all processes.

        :return: those of all encoders, (tasks, parameters), zero where there is none; the decoders' are in ``.grad``.
        :raises NonFiniteError: for a loss or a gradient's norm that is not finite.
        """
        rows = []
        self.summed = False
        self._clear_encoders()  # of a backward pass or a collection before
        for name in self:
            self._model.decoders[name].zero_grad(set_to_none=True)
            self.backward(name)
            own = trainable(self._model.decoders[name])
            sum_gradients([*self._shared, *own])
            flat = flat_gradient(self._shared, self._batches[name].labels.device)
            norm = math.hypot(flat.norm().item(), *(p.grad.norm().item() for p in own if p.grad is not None))
            if not math.isfinite(norm):  # before an update of one's own keeps anything of it
                raise NonFiniteError([name], not_finite(norm))
            self.norms[name] = norm
            rows.append(flat)
            self._used.update(parameter for parameter in self._shared if parameter.grad is not None)
            self._clear_encoders()
        self.summed = True
        return torch.stack(rows)

    def put(self, rows: Tensor, weights: Any, *, decoders: bool = False) -> None:
        """Put the weighted sum of what ``collect`` returned into ``.grad``.

        :param weights: (tasks,), a tensor or what makes one.
        :param decoders: scale each decoder's gradient by its task's weight, too.
        :raises RunError: for weights of another shape, or that are no numbers; before ``collect``.
        :raises NonFiniteError: for weights that are not finite.
        """
        if not self.summed:
            raise RunError("an update must call collect before put")
        wanted = f"an update's weights must be one for each of {len(rows)} tasks, got"
        try:
            weights = weights if isinstance(weights, Tensor) else torch.as_tensor(weights, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise RunError(f"{wanted} {shown(weights)}") from None
        if weights.shape != (len(rows),) or weights.is_complex():
            raise RunError(f"{wanted} {tuple(weights.shape)}{' complex ones' if weights.is_complex() else ''}")
        if not weights.isfinite().all():
            raise NonFiniteError(list(self), f"the update's weights are {weights.tolist()}, no step was taken")
        weights = weights.detach().to(rows)
        total = weights @ rows  # (parameters,)
        start = 0
        for parameter in self._shared:
            count = parameter.numel()
            if parameter in self._used:
                parameter.grad = total[start : start + count].view_as(parameter)
            start += count
        if decoders:
            for name, weight in zip(self, weights, strict=True):
                for parameter in trainable(self._model.decoders[name]):
                    if parameter.grad is not None:
                        parameter.grad.mul_(weight)


def not_finite(norm: float) -> str:
    """Say that a gradient's norm is not finite."""
    return f"the gradient's norm is {norm}, no step was taken; lower lr or loss_weight"


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


def flat_gradient(parameters: Sequence[nn.Parameter], device: torch.device | None = None) -> Tensor:
    """Join copies of all gradients to one vector, zero where there is none; empty without parameters.

    :param device: of a vector that is empty.
    """
    parts = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
    return torch.cat(parts) if parts else torch.zeros(0, device=device)
