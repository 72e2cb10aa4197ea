"""Rows of an embedding table, with a gradient whose memory an update may use again."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["SpareGradients", "embedding"]


class SpareGradients:
    """Gradients of embedding tables, cleared by whoever steps on them and lent to the next backward pass.

    A table of 30,522 rows is so large that the system takes its gradient's memory back at each step; to get it again,
    page by page, or to fill all of it with zeros, costs far more than to clear the few rows that a batch touched.
    """

    def __init__(self) -> None:
        self._spare = WeakIdKeyDictionary()  # weight -> a gradient that is zero throughout
        self._written = WeakIdKeyDictionary()  # weight -> what embeddings have added to its gradient

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let forward passes within, and their backward passes, take from here."""
        before = _lent.set(self)
        try:
            yield
        finally:
            _lent.reset(before)

    def take(self, weight: Tensor) -> Tensor:
        """Return zeros in the shape of ``weight``, spare ones where there are any."""
        spare: Tensor | None = self._spare.pop(weight, None)
        return torch.zeros_like(weight) if spare is None else spare

    def note(self, weight: Tensor, gradient: Tensor, ids: Tensor) -> None:
        """Remember that an embedding has added to the rows ``ids`` of ``gradient``."""
        rows = [*self._written[weight][1], ids] if weight in self._written else [ids]
        if sum(map(len, rows)) > len(weight):  # short also where nobody drops the gradient
            rows = [torch.arange(len(weight), device=ids.device)]
        self._written[weight] = (_mark(gradient), rows)

    def drop(self, weight: Tensor) -> None:
        """Set ``weight.grad`` to None and keep its memory, if clearing the rows touched makes it zero.

        It does not where anything but an embedding has written to it: a tied projection, a penalty, a tensor's hook.
        """
        gradient, weight.grad = weight.grad, None
        written = self._written.pop(weight, None)
        if gradient is None or written is None or not gradient.is_contiguous() or gradient.dtype != weight.dtype:
            return
        mark, rows = written
        untouched = mark == _mark(gradient)
        gradient.index_fill_(0, torch.cat(rows), 0)
        # Written to since, be it by a clipped norm or by a second batch: only a look at all of it can tell.
        if untouched or not any(bound.item() for bound in gradient.aminmax()):
            self._spare[weight] = gradient


def _mark(gradient: Tensor) -> tuple[int, int]:
    """Another one for other memory, and after each write that torch knows of."""
    return gradient.data_ptr(), gradient._version


_lent: ContextVar[SpareGradients | None] = ContextVar("minbert.spare_gradients", default=None)


def embedding(weight: Tensor, ids: Tensor, padding_idx: int | None) -> Tensor:
    """Look up rows of ``weight`` (num_embeddings, width) for int64 ``ids`` (tokens,): (tokens, width).

    :param padding_idx: the row that never learns.
    """
    result: Tensor = _Embedding.apply(weight, ids, padding_idx, _lent.get())
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
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (ids,) = ctx.saved_tensors
        gradient = torch.zeros_like(ctx.weight) if ctx.spares is None else ctx.spares.take(ctx.weight)
        gradient.index_add_(0, ids, gradients[0])
        if ctx.padding_idx is not None:
            gradient[ctx.padding_idx] = 0
        if ctx.spares is not None:
            ctx.spares.note(ctx.weight, gradient, ids)
        return gradient, None, None, None
