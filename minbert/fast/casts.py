"""Weights in the type of a matrix product: cast in each forward pass, or once a call that reads them many times."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["hold_casts", "joined", "product_dtype"]


@dataclass
class _Held:
    """Casts of one hold_casts block, by the type and the parts' ids; each entry keeps its parts alive."""

    casts: dict[tuple[torch.dtype, tuple[int, ...]], tuple[Sequence[Tensor], Tensor]] = field(default_factory=dict)
    is_open: bool = True


_held: ContextVar[_Held | None] = ContextVar("minbert.held_casts", default=None)


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the type that matrix products with ``x`` are computed in: autocast's, or its own."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


@contextmanager
def hold_casts() -> Iterator[None]:
    """Cast each weight once within, instead of in each forward pass; for outputs alone, of weights that nobody edits.

    The casts belong to the block and to its context, a thread or an asyncio task: a block that begins later, or beside
    it, makes its own, and a task that outlives it holds none. Outside of one no cast outlives the forward pass that
    made it, so none can be stale: torch's fused optimizers and edits through ``.data`` leave no trace by which a cache
    could tell. Autocast's own cache does not, either.
    """
    outer = _held.get()
    if outer is not None and outer.is_open:
        yield
        return
    held = _Held()
    before = _held.set(held)
    try:
        yield
    finally:
        held.is_open = False
        held.casts.clear()
        _held.reset(before)


def joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Join weights or biases below one another, in ``dtype``: (sum of out, in) or (sum of out,)."""
    held = _held.get()
    if held is None or not held.is_open or torch.is_grad_enabled() or (len(parts) == 1 and parts[0].dtype == dtype):
        return _joined(parts, dtype)
    key = dtype, tuple(map(id, parts))
    if key not in held.casts:
        held.casts[key] = parts, _joined(parts, dtype)
    return held.casts[key][1]


def _joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    if len(parts) == 1:
        return parts[0].to(dtype)
    if torch.is_grad_enabled():
        return torch.cat([part.to(dtype) for part in parts])
    result = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:], dtype=dtype)
    for part, place in zip(parts, result.split([len(part) for part in parts]), strict=True):
        place.copy_(part)  # each cast is written where it belongs
    return result
