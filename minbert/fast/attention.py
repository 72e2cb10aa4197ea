"""The fused counterpart of attention.attention: packed tokens in groups of rows of like length.

Its backward pass is written out, too. Tests hold it to the formula as it stands in attention.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minbert.fast.kernels import backward_pass, dropout, keep_mask
from minbert.packing import Group, Packing

__all__ = ["Heads", "attention", "attention_backward", "fitted_bias", "pooled_attention", "self_attention"]

# From this width on torch's fused attention, which never writes the scores out, is the faster one.
_FUSED_WIDTH = 64


@dataclass(frozen=True)
class Heads:
    """How attention of one batch is computed: over which rows, in how many heads, dropped at which rate."""

    packing: Packing
    number: int
    dropout: float

    def scale(self, hidden: int) -> float:
        """1 / sqrt(head_size)."""
        return 1 / math.sqrt(hidden // self.number)


def fitted_bias(bias: Tensor, packing: Packing) -> Tensor:
    """Cut or pad a bias (heads, seq, seq) of a padded batch's columns to those that ``attention`` reads, in float32."""
    width, seq = packing.groups[0].width, bias.shape[1]
    if any(columns is not None for columns in packing.group_columns):
        width = max(width, seq)
    fitted = bias.to(_wide(bias.dtype)).contiguous()
    return fitted if width == seq else F.pad(fitted, (0, width - seq, 0, width - seq))


def attention(
    projected: Tensor, heads: Heads, bias: Tensor | None = None, *, saving: bool = True
) -> tuple[Tensor, list[Tensor], float]:
    """Compute softmax(Q K' / sqrt(head_size) + bias) V, each token asking its own row.

    Source: Vaswani et al. 2017, equation 1; the bias as in attention.attention.

    :param projected: queries, keys and values beside one another, packed (slots, 3 * hidden).
    :param bias: ``fitted_bias``, by the columns of query and key in the padded row.
    :param saving: False where no backward pass follows; nothing is kept for one then.
    :return: (slots, hidden); what attention_backward needs: Q, K and V of all groups, then each group's probabilities,
        then at a rate above 0 their keep masks; the scale of what is kept.
    """
    packing, hidden = heads.packing, projected.shape[1] // 3
    padded = _gather(projected, packing.head_index(3, heads.number).into, hidden // heads.number)
    context = padded.new_empty(len(padded) // 3, padded.shape[1])
    keep, keep_scale = _masks(padded, heads)
    saved = [padded]
    for number, group in enumerate(packing.groups):
        q, k, v = _parts(padded, group, heads.number, 3)  # each (rows * heads, width, head_size)
        (attended,) = _parts(context, group, heads.number, 1)
        added = _added(heads, number, bias, q.dtype)
        if not saving and not keep and group.width >= _FUSED_WIDTH:
            attended.copy_(_fused(q, k, v, added, group.rows))
            continue
        scores = torch.baddbmm(
            added, q, k.transpose(1, 2), alpha=heads.scale(hidden), out=None if bias is None else added
        )
        # In float32 and cast: torch's softmax in bfloat16 is several times as slow at most widths.
        probabilities = scores.softmax(-1, _wide(q.dtype)).to(q.dtype)  # (rows * heads, width, width)
        weights = probabilities * keep[number] if keep else probabilities
        _product(weights, v, keep_scale, out=attended)
        if saving:
            saved.append(probabilities)
    back = packing.head_index(1, heads.number).back
    return _gather(context, back, hidden), saved + keep, keep_scale


def _added(heads: Heads, number: int, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return what is added to a group's scores, -inf at padding: (rows * heads, width or, without a bias, 1, width)."""
    group = heads.packing.groups[number]
    if bias is None:
        return group.key_bias(heads.number, dtype)
    by_row = group.key_bias(heads.number, bias.dtype).view(group.rows, heads.number, 1, group.width)[:, :1]
    columns = heads.packing.group_columns[number]
    if columns is None:
        by_column = bias[:, : group.width, : group.width]
    else:
        by_column = bias[:, columns[:, :, None], columns[:, None]].transpose(0, 1)  # (rows, heads, width, width)
    added = by_row.new_empty(group.rows, heads.number, group.width, group.width, dtype=dtype)
    # Added in float32 and cast on the way: in bfloat16 the sum itself takes up to six times as long.
    return torch.add(by_row, by_column, out=added).flatten(0, 1)


def _fused(q: Tensor, k: Tensor, v: Tensor, added: Tensor, rows: int) -> Tensor:
    """Compute one group by torch's fused function.

    :param q: queries (rows * heads, width, head_size), as are keys and values.
    :param added: to the scores, (rows * heads, 1 or width, width), with 1 the same in all heads.
    """
    q, k, v = (part.view(rows, -1, *part.shape[1:]) for part in (q, k, v))
    mask = added.view(rows, -1, *added.shape[1:])  # (rows, heads, 1 or width, width)
    if mask.shape[2] == 1:
        mask = mask[:, :1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).flatten(0, 1)


def attention_backward(
    d_context: Tensor, saved: Sequence[Tensor], heads: Heads, keep_scale: float, bias: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of ``attention``'s arguments: packed (slots, 3 * hidden), zero after the tokens; and bias's.

    :param d_context: (slots, hidden), zero after the tokens.
    :param bias: ``attention``'s own, of which only shape and type are read; None where it wants no gradient.
    """
    packing, hidden = heads.packing, d_context.shape[1]
    groups, scale = packing.groups, heads.scale(hidden)
    padded, saved = saved[0], saved[1:]
    keep = saved[len(groups) :]
    d_out = _gather(d_context, packing.head_index(1, heads.number).into, padded.shape[1])
    d_padded = torch.empty_like(padded)
    d_bias = None if bias is None else torch.zeros_like(bias)
    for number, (group, probabilities) in enumerate(zip(groups, saved, strict=False)):
        q, k, v = _parts(padded, group, heads.number, 3)
        d_q, d_k, d_v = _parts(d_padded, group, heads.number, 3)
        (d_rows,) = _parts(d_out, group, heads.number, 1)
        d_weights = _product(d_rows, v.transpose(1, 2), keep_scale)
        weights = probabilities
        if keep:
            weights = probabilities * keep[number]
            d_weights *= keep[number]
        d_scores = _softmax_backward(d_weights, probabilities)
        if d_bias is not None:
            _add_bias_gradient(d_bias, d_scores, group, packing.group_columns[number])
        _product(d_scores, k, scale, out=d_q)
        _product(d_scores.transpose(1, 2), q, scale, out=d_k)
        _product(weights.transpose(1, 2), d_rows, keep_scale, out=d_v)
    d_projected = _gather(d_padded, packing.head_index(3, heads.number).back, 3 * hidden)
    d_projected[packing.tokens :] = 0
    return d_projected, d_bias


def _add_bias_gradient(d_bias: Tensor, d_scores: Tensor, group: Group, columns: Tensor | None) -> None:
    """Add a group's part to the gradient of a bias, in place: the sum over its rows.

    :param d_scores: (rows * heads, width, width), zero wherever query or key is padding.
    """
    by_row = d_scores.view(group.rows, len(d_bias), group.width, group.width)
    if columns is not None:
        places = columns[:, :, None], columns[:, None]  # (rows, width, width) together
        d_bias.permute(1, 2, 0).index_put_(places, by_row.permute(0, 2, 3, 1).to(d_bias.dtype), accumulate=True)
        return
    own = d_bias[:, : group.width, : group.width]
    if group.rows > 4:
        own += by_row.sum(0, dtype=d_bias.dtype)
        return
    for row in by_row:  # torch's sum over so few takes up to six times as long
        own += row


class _SelfAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projected: Tensor, bias: Tensor | None, heads: Heads) -> Tensor:
        context, saved, ctx.keep_scale = attention(projected, heads, bias)
        ctx.heads = heads
        ctx.save_for_backward(bias if ctx.needs_input_grad[1] else None, *saved)
        return context

    @staticmethod
    @backward_pass
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        bias, *saved = ctx.saved_tensors
        return *attention_backward(gradients[0].contiguous(), saved, ctx.heads, ctx.keep_scale, bias), None


def self_attention(projected: Tensor, packing: Packing, heads: int, p: float, bias: Tensor | None = None) -> Tensor:
    """Compute ``attention`` alone, for a layer that is not computed as a whole.

    :param projected: packed (tokens, 3 * hidden).
    :param p: dropout probability on the attention weights, in [0, 1).
    :param bias: added to the scores, (heads, seq, seq).
    :return: packed (tokens, hidden).
    """
    fitted = None if bias is None else fitted_bias(bias, packing)
    result: Tensor = _SelfAttention.apply(packing.fill(projected), fitted, Heads(packing, heads, p))  # type: ignore[no-untyped-call]
    return packing.cut(result)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _gather(states: Tensor, index: Tensor, width: int) -> Tensor:
    """Head-sized vectors of ``states`` at ``index``, laid out in rows of ``width``."""
    size = states.numel() // states.shape[0]
    vector = min(size, width)
    return states.view(-1, vector).index_select(0, index).view(-1, width)


def _parts(padded: Tensor, group: Group, heads: int, parts: int) -> tuple[Tensor, ...]:
    """View a group's queries, keys and values, (rows * heads, width, head_size) each."""
    length = group.rows * group.width * heads * parts
    own = padded[group.start * heads * parts :][:length]
    return own.view(parts, group.rows * heads, group.width, -1).unbind()


def _masks(padded: Tensor, heads: Heads) -> tuple[list[Tensor], float]:
    """Each group's keep mask, shaped as its probabilities, and the scale of what is kept; none at p = 0."""
    if heads.dropout == 0:
        return [], 1.0
    shapes = [(group.rows * heads.number, group.width, group.width) for group in heads.packing.groups]
    sizes = [math.prod(shape) for shape in shapes]
    keep, scale = keep_mask(torch.Size([sum(sizes)]), heads.dropout, padded)
    return [part.view(shape) for part, shape in zip(keep.split(sizes), shapes, strict=True)], scale


def _product(a: Tensor, b: Tensor, scale: float, *, out: Tensor | None = None) -> Tensor:
    """Compute scale * a @ b, batched, in one call."""
    # With beta = 0 what stands in the first argument is not read, only its shape is.
    return torch.baddbmm(a.new_empty(1, 1, 1), a, b, beta=0, alpha=scale, out=out)


def _softmax_backward(gradient: Tensor, output: Tensor) -> Tensor:
    """Return the gradient of the argument of a softmax over the last axis."""
    # Private to torch, and one pass instead of four.
    fused = getattr(torch, "_softmax_backward_data", None)
    if fused is not None:
        result: Tensor = fused(gradient, output, -1, output.dtype)
        return result
    return output * (gradient - (gradient * output).sum(-1, keepdim=True))


def pooled_attention(query: Tensor, keys_values: Tensor, packing: Packing, heads: int, p: float) -> Tensor:
    """Attend with one query a row, token by token, so that no row is padded.

    :param query: (batch, hidden).
    :param keys_values: keys and values beside one another, packed (tokens, 2 * hidden).
    :return: (batch, hidden).
    """
    row = packing.order[packing.rows]  # (tokens,): whose token it is
    key, value = keys_values.unflatten(1, (2, heads, -1)).unbind(1)  # both (tokens, heads, head_size)
    asked = query.index_select(0, row).view_as(key)
    scores = (asked * key).sum(-1).to(_wide(query.dtype)) / math.sqrt(key.shape[2])  # (tokens, heads)
    padded = scores.new_full((packing.mask.numel(), heads), -math.inf).index_copy(0, packing.token_index, scores)
    over_rows = padded.view(packing.batch_size, packing.seq_length, heads).softmax(1).flatten(0, 1)
    weights = dropout(over_rows.index_select(0, packing.token_index), p)  # (tokens, heads)
    attended: Tensor = (weights[:, :, None] * value).flatten(1)  # (tokens, hidden)
    return attended.new_zeros(query.shape).index_add(0, row, attended).to(query.dtype)
