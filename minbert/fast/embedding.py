"""Rows of an embedding table, with a gradient whose memory an update may use again."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from minbert.fast.kernels import backward_pass

__all__ = ["SpareGradients", "embedding"]


class SpareGradients:
    """Gradients of embedding tables, cleared by whoever steps on them and lent to the next backward pass.

    A table of 30,522 rows is so large that the system takes its gradient's memory back at each step; to get it again,
    page by page, or to fill all of it with zeros, costs far more than to clear the few rows that a batch touched.
    """

    def __init__(self) -> None:
        self._spare = WeakIdKeyDictionary()  # weight -> a gradient that is zero throughout
        # weight -> the rows that embeddings have added to, one tensor for each backward pass
        self._written = WeakIdKeyDictionary()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let forward passes within, and their backward passes, take from here."""
        before = _lent.set(self)
        try:
            yield
        finally:
            _lent.reset(before)

    def take(self, weight: Tensor) -> Tensor:
        """Return zeros like ``weight``, spare ones where there are any."""
        spare: Tensor | None = self._spare.pop(weight, None)
        # The weight may have been cast, moved or resized since.
        if spare is None or (spare.shape, spare.dtype, spare.device) != (weight.shape, weight.dtype, weight.device):
            return torch.zeros_like(weight)
        return spare

    def note(self, weight: Tensor, ids: Tensor) -> None:
        """Remember that an embedding has added to the rows ``ids`` of the weight's gradient."""
        rows = [*self._written.get(weight, ()), ids.long()]
        if sum(map(len, rows)) > len(weight):  # short also where nobody drops the gradient
            rows = [torch.arange(len(weight), device=ids.device)]
        self._written[weight] = rows

    def drop(self, weight: Tensor) -> None:
        """Set ``weight.grad`` to None and keep its memory, if clearing the rows touched makes it zero.

        Only if no one else holds this gradient. It does not become zero where anything but an embedding has written to
        it: a tied projection, a penalty, a tensor's hook.
        """
        gradient, weight.grad = weight.grad, None
        rows = self._written.pop(weight, None)
        if gradient is None or rows is None or not gradient.is_contiguous() or gradient.dtype != weight.dtype:
            return
        gradient.index_fill_(0, torch.cat(rows), 0)
        # Only a look at all of it can tell, as writes through ``.data`` leave no trace: 0.5 % of a backward pass.
        if not any(bound.item() for bound in gradient.aminmax()):
            self._spare[weight] = gradient


_lent: ContextVar[SpareGradients | None] = ContextVar("minbert.spare_gradients", default=None)


def embedding(weight: Tensor, ids: Tensor, padding_idx: int | None) -> Tensor:
    """Look up rows of ``weight`` (num_embeddings, width) for int64 ``ids`` (tokens,): (tokens, width).

    :param padding_idx: the row that never learns.
    """
    result: Tensor = _Embedding.apply(weight, ids, padding_idx, _lent.get())  # type: ignore[no-untyped-call]
    return result


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, ids: Tensor, padding_idx: int | None, spares: SpareGradients | None
    ) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.weight, ctx.padding_idx, ctx.spares = weight, padding_idx, spares
        return weight.index_select(0, ids)

    @staticmethod
    @backward_pass
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (ids,) = ctx.saved_tensors
        gradient = torch.zeros_like(ctx.weight) if ctx.spares is None else ctx.spares.take(ctx.weight)
        gradient.index_add_(0, ids, gradients[0])
        if ctx.padding_idx is not None:
            gradient[ctx.padding_idx] = 0
        if ctx.spares is not None:
            ctx.spares.note(ctx.weight, ids)
        return gradient, None, None, None
