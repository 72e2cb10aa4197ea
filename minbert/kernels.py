"""The fast path: the same mathematics as the written-out reference, in fewer and fused passes.

``set_kernels("reference")`` makes every layer compute the formulas as they stand in layers.py, attention.py and
optim.py; ``set_kernels("fast")``, the default, computes the same through the functions here. Tests hold the two
together. Dropout draws differ between the two: equal seeds give equal runs on one path, not across them. Second
derivatives need the reference path; the fast one refuses them.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from minbert.errors import InputError
from minbert.packing import Packing

__all__ = ["fast_attention", "fast_dropout", "get_kernels", "set_kernels"]

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


def keep_mask(shape: torch.Size, p: float, device: torch.device) -> tuple[Tensor, float]:
    """Bool ``shape``, each True with probability 1 - p, and the exact 1 / P(True).

    torch's CPU ``bernoulli_`` draws each element one after another. 16 raw random bits against a threshold cost a
    seventeenth of it, from the same generator, so seeds and resuming hold; p is rounded to a multiple of 2**-16.
    """
    if device.type != "cpu":
        return torch.rand(shape, device=device) >= p, 1 / (1 - p)
    dropped = min(round(p * 65536), 65535)
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    keep = words.view(torch.int16)[:count].view(shape) >= dropped - 32768
    return keep, 65536 / (65536 - dropped)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        keep, ctx.scale = keep_mask(x.shape, p, x.device)
        ctx.save_for_backward(keep)
        return torch.where(keep, x, 0.0).mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return torch.where(keep, gradients[0], 0.0).mul_(ctx.scale), None


def fast_dropout(x: Tensor, p: float) -> Tensor:
    """Inverted dropout of ``x`` with probability ``p`` in [0, 1)."""
    result: Tensor = _Dropout.apply(x, p)
    return result


def _heads(padded: Tensor, rows: int, heads: int) -> Tensor:
    """(rows * length, hidden) -> (rows * heads, length, head_size), contiguous for the batched products."""
    split = padded.view(rows, -1, heads, padded.shape[1] // heads).transpose(1, 2)
    return split.reshape(rows * heads, split.shape[2], split.shape[3])


def _merge(per_head: Tensor, rows: int) -> Tensor:
    """The inverse of _heads: (rows * heads, length, head_size) -> (rows * length, hidden)."""
    heads, length, head_size = per_head.shape[0] // rows, per_head.shape[1], per_head.shape[2]
    return per_head.view(rows, heads, length, head_size).transpose(1, 2).reshape(rows * length, heads * head_size)


class _Attention(torch.autograd.Function):
    """softmax(Q K' / sqrt(d)) V per group of rows, with the backward pass written out.

    Autograd would keep each copy that padding and splitting into heads make, and pad the gradients of padding;
    here the only things kept are Q, K, V, the probabilities and the dropout mask.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, packing: Packing, heads: int, p: float, pooled: bool
    ) -> Tensor:
        ctx.packing, ctx.heads, ctx.pooled = packing, heads, pooled
        scale = 1 / math.sqrt(query.shape[1] // heads)
        context = torch.empty_like(query)
        saved: list[Tensor] = []
        ctx.keep_scale = 1.0
        for group in packing.groups:
            rows = group.rows
            span = slice(group.first_row, group.first_row + rows) if pooled else slice(group.start, group.stop)
            q = _heads(query[span] if pooled else group.pad(query), rows, heads)  # (rows * heads, queries, head_size)
            k = _heads(group.pad(key), rows, heads)  # (rows * heads, longest, head_size)
            v = _heads(group.pad(value), rows, heads)
            if group.real is None:
                scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)  # (rows * heads, queries, longest)
            else:
                bias = torch.zeros(group.real.shape, dtype=q.dtype, device=q.device)
                bias.masked_fill_(~group.real, -math.inf)
                per_head = bias.repeat_interleave(heads, 0)[:, None]  # (rows * heads, 1, longest)
                scores = torch.baddbmm(per_head, q, k.transpose(1, 2), alpha=scale)
            probabilities = scores.softmax(-1)
            if p > 0:
                keep, ctx.keep_scale = keep_mask(probabilities.shape, p, q.device)
                weights = torch.where(keep, probabilities, 0.0).mul_(ctx.keep_scale)
            else:
                keep, weights = torch.empty(0), probabilities
            merged = _merge(torch.bmm(weights, v), rows)
            context[span] = merged if pooled else group.unpad(merged)
            saved += [q, k, v, probabilities, keep]
        ctx.save_for_backward(*saved)
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        packing, heads, pooled, saved = ctx.packing, ctx.heads, ctx.pooled, ctx.saved_tensors
        scale = 1 / math.sqrt(gradients[0].shape[1] // heads)
        d_query = torch.empty_like(gradients[0])
        d_key = gradients[0].new_empty(packing.tokens, gradients[0].shape[1])
        d_value = torch.empty_like(d_key)
        for number, group in enumerate(packing.groups):
            q, k, v, probabilities, keep = saved[5 * number : 5 * number + 5]
            rows = group.rows
            span = slice(group.first_row, group.first_row + rows) if pooled else slice(group.start, group.stop)
            d_context = _heads(_pad_with_zeros(group, gradients[0], pooled, span), rows, heads)
            d_weights = torch.bmm(d_context, v.transpose(1, 2))  # (rows * heads, queries, longest)
            weights = probabilities
            if keep.numel():
                weights = torch.where(keep, probabilities, 0.0).mul_(ctx.keep_scale)
                d_weights = torch.where(keep, d_weights, 0.0).mul_(ctx.keep_scale)
            inner = (d_weights * probabilities).sum(-1, keepdim=True)
            d_scores = d_weights.sub_(inner).mul_(probabilities).mul_(scale)
            d_q = _merge(torch.bmm(d_scores, k), rows)
            d_query[span] = d_q if pooled else group.unpad(d_q)
            d_key[group.start : group.stop] = group.unpad(_merge(torch.bmm(d_scores.transpose(1, 2), q), rows))
            d_value[group.start : group.stop] = group.unpad(_merge(torch.bmm(weights.transpose(1, 2), d_context), rows))
        return d_query, d_key, d_value, None, None, None, None


def _pad_with_zeros(group: Any, gradient: Tensor, pooled: bool, span: slice) -> Tensor:
    """The gradient of a group's context, padded; a padded query was never read, so its gradient is zero."""
    if pooled or group.lengths is None:
        return gradient[span]
    padded: Tensor = group.pad(gradient)
    return padded.mul_(group.real.flatten()[:, None])


def fast_attention(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, heads: int, p: float, *, pooled: bool
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1) over packed tokens.

    :param query: (tokens, hidden), or (batch, hidden) in ``packing.order`` when ``pooled``: one query a row.
    :param key: (tokens, hidden), as is ``value``.
    :param p: dropout probability on the attention weights.
    :return: the shape of ``query``.
    """
    result: Tensor = _Attention.apply(query, key, value, packing, heads, p, pooled)
    return result


def fast_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """torch's fused layer norm, (..., hidden) -> (..., hidden)."""
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def fast_gelu(x: Tensor) -> Tensor:
    """torch's fused exact GELU, any shape."""
    return F.gelu(x)
