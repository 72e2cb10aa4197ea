"""Attention on the fast path: over packed tokens, in groups of rows of like length, its backward pass written out.

Beside attention.py, which has the formula as it stands; tests hold the two together.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from minbert.kernels import fast_dropout, keep_mask
from minbert.packing import Group, Packing

__all__ = ["pooled_attention", "self_attention"]


def self_attention(projected: Tensor, packing: Packing, heads: int, p: float) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1), each token asking its own row.

    :param projected: queries, keys and values beside one another, packed (tokens, 3 * hidden).
    :param p: dropout probability on the attention weights, in [0, 1).
    :return: packed (tokens, hidden).
    """
    if p == 0 and not (projected.requires_grad and torch.is_grad_enabled()):
        return _fused_attention(projected, packing, heads)
    result: Tensor = _SelfAttention.apply(projected, packing, heads, p)
    return result


def _fused_attention(projected: Tensor, packing: Packing, heads: int) -> Tensor:
    """The same by torch's fused kernel, for outputs alone: its backward pass is slow on short rows."""
    hidden = projected.shape[1] // 3
    padded = packing.pad(projected)
    context = padded.new_empty(packing.padded_size, hidden)
    for group in packing.groups:
        split = padded[group.span].view(group.rows, group.longest, 3, heads, -1)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind()  # each (rows, heads, longest, head_size)
        bias = group.key_bias(1, q.dtype)  # (rows, 1, longest)
        attended = F.scaled_dot_product_attention(q, k, v, None if bias is None else bias[:, None])
        context[group.span].view(group.rows, group.longest, heads, -1).copy_(attended.transpose(1, 2))
    return packing.unpad(context)


class _SelfAttention(torch.autograd.Function):
    """softmax(Q K' / sqrt(d)) V for one group of rows after another.

    Autograd would keep each copy that padding and splitting into heads make; here the only things kept are Q, K, V,
    the probabilities and the dropout mask. torch's fused attention has no fast path with dropout on the CPU.
    """

    @staticmethod
    def forward(ctx: Any, projected: Tensor, packing: Packing, heads: int, p: float) -> Tensor:
        ctx.packing, ctx.heads = packing, heads
        hidden = projected.shape[1] // 3
        scale = 1 / math.sqrt(hidden // heads)
        padded = packing.pad(projected)  # (padded, 3 * hidden)
        context = padded.new_empty(packing.padded_size, hidden)
        keep, ctx.keep_scale = _masks(padded, packing, heads, p)
        saved: list[Tensor] = []
        for number, group in enumerate(packing.groups):
            qkv = _heads(padded[group.span], group, heads, 3)
            q, k, v = qkv.unbind()  # each (rows * heads, longest, head_size)
            scores = _product(q, k.transpose(1, 2), scale, group.key_bias(heads, q.dtype))
            probabilities = scores.softmax(-1)  # (rows * heads, longest, longest)
            weights = probabilities * keep[number] if keep else probabilities
            _place(_product(weights, v, ctx.keep_scale)[None], group, heads, context[group.span])
            saved += [qkv, probabilities]
        ctx.save_for_backward(*saved, *keep)
        return packing.unpad(context)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        packing, heads, groups = ctx.packing, ctx.heads, ctx.packing.groups
        d_context = packing.pad_with_zeros(gradients[0])  # nobody read a padded query's context
        hidden = d_context.shape[1]
        scale = 1 / math.sqrt(hidden // heads)
        d_projected = d_context.new_empty(packing.padded_size, 3 * hidden)
        keep = ctx.saved_tensors[2 * len(groups) :]
        for number, group in enumerate(groups):
            qkv, probabilities = ctx.saved_tensors[2 * number : 2 * number + 2]
            q, k, v = qkv.unbind()
            (d_out,) = _heads(d_context[group.span], group, heads, 1).unbind()
            d_weights = _product(d_out, v.transpose(1, 2), ctx.keep_scale)
            weights = probabilities
            if keep:
                weights = probabilities * keep[number]
                d_weights *= keep[number]
            d_scores = _softmax_backward(d_weights, probabilities)
            d_qkv = torch.empty_like(qkv)
            _product(d_scores, k, scale, out=d_qkv[0])
            _product(d_scores.transpose(1, 2), q, scale, out=d_qkv[1])
            _product(weights.transpose(1, 2), d_out, ctx.keep_scale, out=d_qkv[2])
            _place(d_qkv, group, heads, d_projected[group.span])
        return packing.unpad(d_projected), None, None, None


def _masks(padded: Tensor, packing: Packing, heads: int, p: float) -> tuple[list[Tensor], float]:
    """Each group's keep mask, shaped as its probabilities, and the scale of what is kept; none at p = 0."""
    if p == 0:
        return [], 1.0
    shapes = [(group.rows * heads, group.longest, group.longest) for group in packing.groups]
    sizes = [math.prod(shape) for shape in shapes]
    keep, scale = keep_mask(torch.Size([sum(sizes)]), p, padded)
    return [part.view(shape) for part, shape in zip(keep.split(sizes), shapes, strict=True)], scale


def _heads(padded: Tensor, group: Group, heads: int, parts: int) -> Tensor:
    """A group's (rows * longest, parts * hidden) -> (parts, rows * heads, longest, head_size), contiguous."""
    split = padded.view(group.rows, group.longest, parts, heads, -1).permute(2, 0, 3, 1, 4)
    return split.reshape(parts, group.rows * heads, group.longest, split.shape[4])


def _place(per_head: Tensor, group: Group, heads: int, padded: Tensor) -> None:
    """The inverse of _heads: write (parts, rows * heads, longest, head_size) into (rows * longest, parts * hidden)."""
    parts = per_head.shape[0]
    split = per_head.view(parts, group.rows, heads, group.longest, -1).permute(1, 3, 0, 2, 4)
    padded.view(split.shape).copy_(split)


def _product(a: Tensor, b: Tensor, scale: float, bias: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """bias + scale * a @ b, batched, in one call."""
    # With beta = 0 what stands in the first argument is not read, only its shape is.
    first = a.new_empty(1, 1, 1) if bias is None else bias
    return torch.baddbmm(first, a, b, beta=0 if bias is None else 1, alpha=scale, out=out)


def _softmax_backward(gradient: Tensor, output: Tensor) -> Tensor:
    """The gradient of what softmax over the last axis was taken of."""
    # Private to torch, and one pass instead of four.
    fused = getattr(torch, "_softmax_backward_data", None)
    if fused is not None:
        result: Tensor = fused(gradient, output, -1, output.dtype)
        return result
    return output * (gradient - (gradient * output).sum(-1, keepdim=True))


def pooled_attention(query: Tensor, keys_values: Tensor, packing: Packing, heads: int, p: float) -> Tensor:
    """The same with one query a row, token by token: no row is padded.

    :param query: (batch, hidden).
    :param keys_values: keys and values beside one another, packed (tokens, 2 * hidden).
    :return: (batch, hidden).
    """
    row = packing.order[packing.rows]  # (tokens,): whose token it is
    wide = torch.promote_types(query.dtype, torch.float32)
    key, value = keys_values.unflatten(1, (2, heads, -1)).unbind(1)  # both (tokens, heads, head_size)
    asked = query.index_select(0, row).view_as(key)
    scores = (asked * key).sum(-1).to(wide) / math.sqrt(key.shape[2])  # (tokens, heads)
    padded = scores.new_full((packing.mask.numel(), heads), -math.inf).index_copy(0, packing.token_index, scores)
    over_rows = padded.view(packing.batch_size, packing.seq_length, heads).softmax(1).flatten(0, 1)
    weights = fast_dropout(over_rows.index_select(0, packing.token_index), p)  # (tokens, heads)
    attended = (weights[:, :, None] * value).flatten(1)  # (tokens, hidden)
    return attended.new_zeros(query.shape).index_add(0, row, attended).to(query.dtype)
