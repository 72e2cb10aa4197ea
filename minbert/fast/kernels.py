"""The fast path: the same mathematics as the written-out reference, in fewer and fused passes.

``set_kernels("reference")`` makes every layer compute the formulas as they stand in layers.py, attention.py and
optim.py; ``set_kernels("fast")``, the default, computes the same through the functions here. Tests hold the two
together. Dropout draws differ between the two: equal seeds give equal runs on one path, not across them. Second
derivatives need the reference path; the fast one refuses them.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakIdKeyDictionary

from minbert.errors import InputError
from minbert.packing import FILL

__all__ = ["get_kernels", "set_kernels"]

_NAMES = ("reference", "fast")
_active = "fast"


def set_kernels(name: str) -> None:
    """Choose for the whole process how layers compute: ``"fast"`` (default) or ``"reference"``."""
    global _active
    if name not in _NAMES:
        raise InputError(f"set_kernels: name is {name!r}; known: {', '.join(_NAMES)}")
    _active = name


def get_kernels() -> str:
    """The name of the path in use, ``"fast"`` or ``"reference"``."""
    return _active


def keep_mask(shape: torch.Size, p: float, like: Tensor) -> tuple[Tensor, float]:
    """1 with probability 1 - p, else 0, in the type and on the device of ``like``; and the exact 1 / P(1).

    torch's CPU ``bernoulli_`` draws each element one after another. 8 raw random bits against a threshold cost a
    thirtieth of it, from the same generator, so seeds and resuming hold; p is rounded to a multiple of 1/256, to 1/256
    at least. Numbers, not bools: a product with them is one vectorised pass, torch.where several times that.
    """
    keep = torch.empty(shape, dtype=like.dtype, device=like.device)
    if like.device.type != "cpu":
        return torch.ge(torch.rand(shape, device=like.device), p, out=keep), 1 / (1 - p)
    dropped = min(max(round(p * 256), 1), 255)
    count = math.prod(shape)
    words = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None)
    torch.ge(words.view(torch.int8)[:count].view(shape), dropped - 128, out=keep)
    return keep, 256 / (256 - dropped)


def fast_dropout(x: Tensor, p: float) -> Tensor:
    """Inverted dropout of ``x`` with probability ``p`` in [0, 1)."""
    if p == 0:
        return x
    keep, scale = keep_mask(x.shape, p, x)
    return (x * keep).mul_(scale)


def fast_dropout_residual(x: Tensor, branch: Tensor, p: float) -> Tensor:
    """x + dropout(branch) in one pass, in the type of ``x``."""
    keep, scale = keep_mask(x.shape, p, x)
    return torch.addcmul(x, branch.to(x.dtype), keep, value=scale)


def fast_linear(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """x W' + b with the rows of all ``weights`` below one another: (..., in) -> (..., sum of out).

    In another type than float32 the rows are rounded up, see packing.FILL.
    """
    dtype, rows = product_dtype(x), x.shape[:-1].numel()
    if dtype == torch.bfloat16 and rows > FILL and rows % FILL:
        filled = F.pad(x.flatten(0, -2), (0, 0, 0, -rows % FILL))
        return fast_linear(filled, weights, biases)[:rows].unflatten(0, x.shape[:-1])
    return F.linear(x.to(dtype), joined(weights, dtype), joined(biases, dtype))


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W' + b without a gradient: (rows, in) -> (rows, out), all of one type."""
    # Private to torch: oneDNN adds the bias within the product, where F.linear first writes it to each row.
    if _linear_pointwise is not None and x.dtype == torch.bfloat16 and x.device.type == "cpu":
        result: Tensor = _linear_pointwise(x, weight, bias, "none", [], "")
        return result
    return F.linear(x, weight, bias)


_linear_pointwise = getattr(getattr(torch.ops, "mkldnn", None), "_linear_pointwise", None)


def product_dtype(x: Tensor) -> torch.dtype:
    """The type that matrix products with ``x`` are computed in: autocast's, or its own."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


# Casts by first weight while hold_casts is in force.
_held: WeakIdKeyDictionary | None = None


@contextmanager
def hold_casts() -> Iterator[None]:
    """Within, each weight is cast once and not in each forward pass; for outputs alone, of weights that nobody edits.

    Outside of it no cast outlives the forward pass that made it, so none can be stale: torch's fused optimizers and
    edits through ``.data`` leave no trace by which a cache could tell. Autocast's own cache does not, either.
    """
    global _held
    before, _held = _held, WeakIdKeyDictionary() if _held is None else _held
    try:
        yield
    finally:
        _held = before


def joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Weights or biases below one another, in ``dtype``."""
    if _held is None or torch.is_grad_enabled() or (len(parts) == 1 and parts[0].dtype == dtype):
        return _joined(parts, dtype)
    key = (dtype, len(parts))
    casts = _held.setdefault(parts[0], {})
    if key not in casts:
        casts[key] = _joined(parts, dtype)
    cast: Tensor = casts[key]
    return cast


def _joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    if len(parts) == 1:
        return parts[0].to(dtype)
    if torch.is_grad_enabled():
        return torch.cat([part.to(dtype) for part in parts])
    result = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:], dtype=dtype)
    for part, place in zip(parts, result.split([len(part) for part in parts]), strict=True):
        place.copy_(part)  # each cast is written where it belongs
    return result


@cache
def keep_freed_memory() -> None:
    """Have the C library keep some 64 MB that are given back to it, once a process.

    The activations of a forward pass, a few MB each, would go back to the system when freed and be taken again page by
    page: a tenth of a pass over 1,000 tokens. glibc does so up to sizes that it has seen come and go once; elsewhere
    this does nothing.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, padding_idx: int | None) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.weight, ctx.padding_idx = weight, padding_idx
        return weight.index_select(0, ids)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (ids,) = ctx.saved_tensors
        gradient = _spare_gradients.pop(ctx.weight, None)
        if gradient is None:
            gradient = torch.zeros_like(ctx.weight)
        gradient.index_add_(0, ids, gradients[0])
        if ctx.padding_idx is not None:
            gradient[ctx.padding_idx] = 0
        touched = _touched_rows.setdefault(ctx.weight, [])
        touched.append(ids)
        if sum(map(len, touched)) > len(ctx.weight):  # so that the list stays short where nobody drops the gradient
            touched[:] = [torch.arange(len(ctx.weight), device=ids.device)]
        return gradient, None, None


# All zero, left by drop_embedding_gradient for the next backward pass; and the rows that passes since have added to.
_spare_gradients, _touched_rows = WeakIdKeyDictionary(), WeakIdKeyDictionary()


def fast_embedding(weight: Tensor, ids: Tensor, padding_idx: int | None) -> Tensor:
    """Rows of ``weight`` (num_embeddings, width) for int64 ``ids`` (tokens,): (tokens, width)."""
    result: Tensor = _Embedding.apply(weight, ids, padding_idx)
    return result


def drop_embedding_gradient(weight: Tensor) -> None:
    """``weight.grad = None``, but the next backward pass of fast_embedding writes into the same memory.

    A table of 30,522 rows is so large that the system takes its gradient's memory back at each step; to get it again,
    page by page, or to fill all of it with zeros, costs far more than to clear the few rows that a batch touched. Only
    for a caller that nobody has the gradient of, and where nothing but fast_embedding adds to it.
    """
    gradient, weight.grad = weight.grad, None
    touched = _touched_rows.pop(weight, [])
    if gradient is not None and touched and gradient.is_contiguous() and gradient.dtype == weight.dtype:
        _spare_gradients[weight] = gradient.index_fill_(0, torch.cat(touched), 0)


def fast_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """torch's fused layer norm, (..., hidden) -> (..., hidden)."""
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def fast_gelu(x: Tensor) -> Tensor:
    """torch's fused exact GELU, any shape."""
    return F.gelu(x)
